/** Which calls the agent makes, seen by the proxy that it leaves by. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
// Outside this repository: from "authbridge-proxy" and "authbridge-proxy/plugin".
import { createProxy, type EmbeddedProxy, type ProxyEvent } from "../../src/embed/proxy.ts";
import { definePlugin, deny } from "../../src/pipeline/plugin.ts";
import { runAgent } from "./agent.ts";

let tools: Server;
let proxy: EmbeddedProxy;
let url: string;

// Stands for both tools.
beforeEach(async () => {
  tools = createServer((request, response) => {
    response.end(request.method === "GET" ? "sunny" : "");
  });
  await new Promise<void>((resolve) => tools.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(tools.address() as AddressInfo).port}`;
});

afterEach(async () => {
  await proxy.close();
  tools.close();
});

test("the agent asks for one forecast and sends one mail", async () => {
  proxy = createProxy({ egress: { allow_ips: ["127.0.0.0/8"] } });
  const { forward } = await proxy.listen();
  const calls = recorded(proxy);

  expect(await runAgent({ proxy: forward!, weather: url, mail: url })).toBe("sent: sunny");

  await proxy.close();
  expect(await calls).toEqual(["GET /forecast 200", "POST /messages 200"]);
});

test("the agent says so where it may not send mail", async () => {
  const readOnly = definePlugin({
    name: "read-only",
    description: "Refuses what could change something",
    create: () => ({
      onRequest: ({ method }) =>
        method === "GET"
          ? undefined
          : deny("not_a_read", { code: "read-only", message: "no", status: 403 }),
    }),
  });
  proxy = createProxy({
    egress: { allow_ips: ["127.0.0.0/8"] },
    pipeline: { outbound: { plugins: [readOnly] } },
  });
  const { forward } = await proxy.listen();
  const calls = recorded(proxy);

  expect(await runAgent({ proxy: forward!, weather: url, mail: url })).toBe("not sent (403)");

  await proxy.close();
  expect(await calls).toEqual(["GET /forecast 200", "POST /messages denied"]);
});

/** What the agent calls from now on, once the proxy is closed. */
async function recorded({ events }: EmbeddedProxy): Promise<string[]> {
  const calls: string[] = [];
  for await (const event of events) if (event.phase !== "request") calls.push(lineOf(event));
  return calls;
}

function lineOf({ httpMethod, httpPath, phase, statusCode }: ProxyEvent): string {
  return `${httpMethod} ${httpPath} ${phase === "denied" ? phase : statusCode}`;
}
