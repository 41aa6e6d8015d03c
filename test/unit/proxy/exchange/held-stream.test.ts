/** What is kept of a response for a client that was told that it waits. */
import { once } from "node:events";
import { connect } from "node:net";
import { afterEach, expect, test } from "vitest";
import { createProxy, type EmbeddedProxy } from "../../../../src/embed/proxy.ts";
import { BodyBudget } from "../../../../src/http/body.ts";
import { allow, definePlugin } from "../../../../src/pipeline/plugin.ts";
import type { Downstream } from "../../../../src/proxy/exchange/downstream.ts";
import { HeldStream } from "../../../../src/proxy/exchange/held-stream.ts";
import { eventually } from "../../../support/eventually.ts";
import { HttpOrigin, reply } from "../../../support/origin.ts";
import { message } from "../../../support/plugin-bench.ts";

const open: { close(): Promise<unknown> }[] = [];
const call = Buffer.from('{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{}}');
const accept = "application/json, text/event-stream";

afterEach(async () => {
  await Promise.all(open.splice(0).map((one) => one.close()));
});

test("is counted with other bodies until it has left, and refused where there is no memory for it", async () => {
  const written: string[] = [];
  const inner = {
    headSent: false,
    isDrained: true,
    writeHead: () => undefined,
    write: (chunk: Buffer) => written.push(chunk.toString()) > 0,
    end: (chunk: Buffer) => written.push(chunk.toString()),
  } as unknown as Downstream;
  const context = message({ method: "POST", headers: { accept } });
  context.content.load(call);
  const budget = new BodyBudget(40);
  const held = HeldStream.over(inner, context, 1, { maxBytes: 100, budget });
  if (held === undefined) throw new Error("its client can be told");
  await eventually(() => held.isPromised);
  held.writeHead(200, ["Content-Type", "application/json"]);
  held.write(Buffer.from('{"jsonrpc":"2.0",'));
  // The connection that it came on would use its memory again.
  expect([budget.usedBytes, held.isDrained]).toEqual([17, false]);
  held.end(Buffer.from('"id":7,"result":{}}'));
  expect(budget.usedBytes).toBe(0);
  expect(written.at(-1)).toContain('data: {"jsonrpc":"2.0","id":7,"result":{}}');
  held.writeHead(200, []);
  held.write(Buffer.alloc(30));
  expect(() => held.write(Buffer.alloc(30))).toThrow("limits.max_buffered");
  expect([budget.usedBytes, held.headSent]).toEqual([0, false]);
});

test("is an error of the call where it is too long", async () => {
  const { promise: told, resolve: isTold } = Promise.withResolvers<void>();
  const holding = definePlugin({
    name: "holding",
    description: "Waits until the client knows that it does",
    body: { request: "read" },
    create: () => ({
      onRequest: async (context) => {
        context.holder?.tellHeld(5);
        await told;
        return allow("approved");
      },
    }),
  });
  const origin = await HttpOrigin.launch(() => reply(200, "x".repeat(4_096)));
  const proxy: EmbeddedProxy = createProxy({
    egress: { allow_ips: ["127.0.0.0/8"] },
    limits: { max_body: "1KiB" },
    pipeline: { outbound: { plugins: [holding] } },
  });
  open.push(origin, { close: () => proxy.close({ timeout: 0 }) });
  const { forward } = await proxy.listen();
  const client = connect(forward?.port ?? 0, forward?.host ?? "");
  let got = "";
  client.on("data", (chunk: Buffer) => {
    got += chunk.toString();
    if (got.includes(": waiting")) isTold();
  });
  const fields = [
    `POST ${origin.url}/ HTTP/1.1`,
    `Host: ${origin.authority}`,
    `Accept: ${accept}`,
    "Connection: close",
    `Content-Length: ${call.length}`,
  ];
  client.write(`${fields.join("\r\n")}\r\n\r\n${call.toString()}`);
  await once(client, "close");
  expect(got).toContain('"id":7,"error":{');
  expect(got).toContain("upstream.response-too-large");
});
