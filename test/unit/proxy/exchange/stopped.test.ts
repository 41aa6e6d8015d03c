/** Exchanges that end while a plugin is still waited for, or whose plugin says what cannot be written. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import http2 from "node:http2";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, expect, test } from "vitest";
import {
  createProxy,
  type EmbeddedProxy,
  type ProxyAddress,
  type ProxyEvent,
  type ProxyOptions,
} from "../../../../src/embed/proxy.ts";
import {
  allow,
  definePlugin,
  deny,
  type Plugin,
  respond,
} from "../../../../src/pipeline/plugin.ts";
import { within } from "../../../support/eventually.ts";
import { sendOrder } from "../../../support/operator-order.ts";
import { HttpOrigin, reply } from "../../../support/origin.ts";
import { a2aMessage, ask } from "../../../support/session-agent.ts";

const scratch = mkdtempSync(join(tmpdir(), "authbridge-stopped-"));
const secret = "operator-secret";
const secretFile = join(scratch, "secret");
writeFileSync(secretFile, secret);
const open: { close(): Promise<unknown> }[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((one) => one.close()));
});
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

function step(name: string, hooks: Plugin): ReturnType<typeof definePlugin> {
  return definePlugin({ name, description: name, create: () => hooks });
}

async function launch(answer?: HttpOrigin["answer"]): Promise<HttpOrigin> {
  const origin = await HttpOrigin.launch(answer);
  open.push(origin);
  return origin;
}

async function listening(options: ProxyOptions): Promise<EmbeddedProxy> {
  const proxy = createProxy({ egress: { allow_ips: ["127.0.0.0/8"] }, ...options });
  open.push({ close: () => proxy.close({ timeout: 0 }) });
  await proxy.listen();
  return proxy;
}

function portOf(proxy: EmbeddedProxy, name: keyof EmbeddedProxy["address"]): ProxyAddress {
  const address = proxy.address[name];
  if (address === undefined) throw new Error(`${name} does not listen`);
  return address;
}

/** The first event of the response to a request that is not over before it. */
async function ended(proxy: EmbeddedProxy, work: () => unknown): Promise<ProxyEvent> {
  const events = proxy.events[Symbol.asyncIterator]();
  const working = work();
  for (;;) {
    const { value } = await within("the event", events.next());
    if (value === undefined) throw new Error("there are no events more");
    if (value.phase === "request") continue;
    await working;
    return value;
  }
}

test("a client that left before its message was permitted leaves the conversations of others alone", async () => {
  const { promise: asked, resolve: isAsked } = Promise.withResolvers<void>();
  const { promise: settled, resolve: settle } = Promise.withResolvers<void>();
  const slow = step("slow", {
    onRequest: async ({ path }) => {
      if (path !== "/left") return allow("fast");
      isAsked();
      await settled;
      return allow("late");
    },
  });
  const tool = await launch();
  const agent = await launch(async ({ target }) => {
    if (target === "/a2a") await ask(portOf(proxy, "forward"), `${tool.url}/call`);
    return reply(200, "{}", { "Content-Type": "application/json" });
  });
  const proxy = await listening({
    listener: { reverse_proxy_backend: agent.url },
    pipeline: {
      inbound: { plugins: ["a2a-parser", slow] },
      outbound: { plugins: [step("open", { onRequest: () => allow("all") })] },
    },
  });
  const reverse = portOf(proxy, "reverse");
  const left = await ended(proxy, async () => {
    const client = connect(reverse.port, reverse.host);
    client.write("POST /left HTTP/1.1\r\nHost: agent\r\nContent-Length: 2\r\n\r\nhi");
    await asked;
    client.destroy();
  });
  expect(left).toMatchObject({ httpPath: "/left", statusCode: 499 });
  settle();
  const headers = { "content-type": "application/json" };
  const call = await ended(proxy, () =>
    ask(reverse, "/a2a", { method: "POST", headers, body: a2aMessage("do it", "one") }).catch(
      () => undefined,
    ),
  );
  expect(call).toMatchObject({ httpPath: "/call", sessionId: "one", tiedBy: "served" });
});

test("what was stopped while its response was judged is recorded as stopped", async () => {
  const { promise: asked, resolve: isAsked } = Promise.withResolvers<void>();
  const judge = step("judge", {
    onRequest: () => allow("all"),
    onResponse: async ({ signal }) => {
      isAsked();
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      return deny("too_late", { code: "policy.forbidden", message: "not asked any more" });
    },
  });
  const origin = await launch();
  const proxy = await listening({
    session: { api_secret_file: secretFile },
    listener: { session_api_addr: "127.0.0.1:0" },
    pipeline: { outbound: { plugins: [judge] } },
  });
  const { host, port } = portOf(proxy, "forward");
  const client = http2.connect(`http://${host}:${port}`);
  client.on("error", () => undefined);
  const event = await ended(proxy, async () => {
    client.request({ ":path": "/", ":authority": origin.authority }).on("error", () => undefined);
    await asked;
    const address = (): ProxyAddress => portOf(proxy, "sessions");
    await sendOrder({ address }, "/v1/kill", { scope: "all", value: "", reason: "drill" }, secret);
  });
  expect(event.error).toMatchObject({ code: "policy.killed" });
  client.destroy();
});

test.each(["", "Connection: Upgrade\r\nUpgrade: websocket\r\n"])(
  "a reply that cannot be written cuts the connection and ends the exchange (%j)",
  async (upgrade) => {
    const broken = step("broken", {
      onRequest: () => allow("all"),
      onResponse: () => respond("broken", { status: 200, headers: {}, body: undefined as never }),
    });
    const switching =
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    const origin = await launch();
    origin.answerHead = (_head, connection) => {
      if (upgrade !== "") void connection.send(switching);
      return upgrade !== "";
    };
    const proxy = await listening({ pipeline: { outbound: { plugins: [broken] } } });
    const { host, port } = portOf(proxy, "forward");
    const client = connect(port, host);
    const closed = new Promise((resolve) =>
      client.on("error", () => undefined).on("close", resolve),
    );
    const event = await ended(proxy, () =>
      client.write(`GET ${origin.url}/ HTTP/1.1\r\nHost: ${origin.authority}\r\n${upgrade}\r\n`),
    );
    expect(event).toMatchObject({ phase: "response", statusCode: 200 });
    await within("the cut", closed);
  },
);
