/** Approval where the bridge opens TLS: of the connection, and of single requests in it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ClientHttp2Stream, constants } from "node:http2";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { Approver } from "../support/approvals.ts";
import { BridgeProxy, handshake } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { eventually } from "../support/eventually.ts";
import { RawClient, request } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { inbound, merge, ProxyProcess, settings } from "../support/proxy.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const own = owner();
const host = "api.allowed.test";
const scratch = mkdtempSync(join(tmpdir(), "authbridge-approval-bridge-"));
const secretFile = join(scratch, "operator");
writeFileSync(secretFile, "operator-secret");
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let authority: TestAuthority;
let origin: TlsOrigin;
beforeAll(async () => {
  authority = await TestAuthority.create();
  origin = await own(TlsOrigin.start(await authority.server([host])));
});

async function start(endpoint: object, more: Settings = {}): Promise<[BridgeProxy, Approver]> {
  const endpoints = [{ host, port: origin.port, ...endpoint }];
  const proxy = await own(
    BridgeProxy.start({
      ports: [origin.port],
      originCa: authority.caPem,
      names: [host],
      plugins: [{ name: "egress-policy", config: { network_policies: { api: { endpoints } } } }],
      file: { session: { api_secret_file: secretFile }, ...more },
    }),
  );
  return [proxy, new Approver(proxy, "operator-secret")];
}

test("a request inside is held, and one that needs no approval is not", async () => {
  const rules = [
    { allow: { method: "GET", path: "/open" } },
    { ask: { method: "GET", path: "/secret" } },
  ];
  const [proxy, operator] = await start({ protocol: "rest", enforcement: "enforce", rules });
  expect((await proxy.get(origin.at(host), "/open")).status).toBe(200);
  const sent = proxy.get(origin.at(host), "/secret");
  const ask = await operator.next();
  expect(ask.request).toMatchObject({ scheme: "https", host, path: "/secret" });
  await operator.allow(ask.id);
  expect((await sent).status).toBe(200);
});

test("a connection is approved once, with what is in it", async () => {
  const [proxy, operator] = await start({ enforcement: "ask" });
  const opened = proxy.get(origin.at(host), "/secret");
  await operator.allow((await operator.next()).id);
  expect((await opened).status).toBe(200);
  expect(await operator.pending()).toEqual([]);
  const refused = proxy.get(origin.at(host), "/secret");
  await operator.deny((await operator.next()).id, "no more");
  expect((await refused).text).toContain("no more");
});

describe.each(["CONNECT", "SOCKS5", "HTTP/2 CONNECT"] as const)("by %s", (door) => {
  const rules = [{ ask: { method: "GET", path: "/**" } }];

  test("the connection is held before its success, and a refusal is one of its protocol", async () => {
    const [proxy, operator] = await start({ enforcement: "ask" });
    const opening = proxy.enter(door, origin.at(host));
    const ask = await operator.next();
    expect(ask.request).toMatchObject({ method: "CONNECT", host, port: origin.port });
    await operator.allow(ask.id);
    const { status, socket } = await opening;
    expect(status).toBe(200);
    const inside = new RawClient(await handshake(socket, origin.at(host), { ca: proxy.ca }));
    inside.write({ target: "/", headers: { Host: origin.at(host) } });
    expect((await inside.response()).status).toBe(200);
    const refused = proxy.enter(door, origin.at(host));
    await operator.deny((await operator.next()).id, "no");
    // TLS that the bridge opens is told of the refusal inside.
    const answer = await refused;
    if (answer.status === 200) {
      const told = new RawClient(await handshake(answer.socket, origin.at(host), { ca: proxy.ca }));
      told.write({ target: "/", headers: { Host: origin.at(host) } });
      expect((await told.response()).status).toBe(403);
    } else expect(answer.status).toBe(403);
  });

  test("a request in it is held", async () => {
    const [proxy, operator] = await start({ protocol: "rest", enforcement: "enforce", rules });
    const { socket } = await proxy.enter(door, origin.at(host));
    const inside = new RawClient(await handshake(socket, origin.at(host), { ca: proxy.ca }));
    inside.write({ target: "/secret", headers: { Host: origin.at(host) } });
    await operator.allow((await operator.next()).id);
    expect((await inside.response()).status).toBe(200);
  });
});

test.each([1, 2])(
  "streams of HTTP/2 are held each for itself, and a reset frees its place (workers: %i)",
  async (workers) => {
    const rules = [{ ask: { method: "*", path: "/**" } }];
    const [proxy, operator] = await start(
      { protocol: "rest", enforcement: "enforce", rules },
      { workers },
    );
    const session = await proxy.http2(origin.at(host));
    await own(Promise.resolve({ close: () => session.destroy() }));
    const statusOf = (path: string): { stream: ClientHttp2Stream; status: Promise<number> } => {
      const stream = session.request({ ":path": path, ":method": "POST" });
      stream.on("error", () => undefined).resume();
      stream.end("x");
      const status = new Promise<number>((resolve) =>
        stream.once("response", (fields) => resolve(Number(fields[":status"]))),
      );
      return { stream, status };
    };
    const [one, two, gone] = [statusOf("/one"), statusOf("/two"), statusOf("/gone")];
    const asks = await operator.waitFor(3);
    const idOf = (path: string): string =>
      asks.find(({ request: of }) => of["path"] === path)?.id ?? "";
    gone.stream.close(constants.NGHTTP2_CANCEL);
    await eventually(async () => (await proxy.metric("authbridge_approvals_held")) === 2);
    await operator.deny(idOf("/two"));
    expect(await two.status).toBe(403);
    await operator.allow(idOf("/one"));
    expect(await one.status).toBe(200);
  },
);

test("what comes to the agent is asked about as well", async () => {
  let served = 0;
  const agent = await own(
    HttpOrigin.launch(() => {
      served += 1;
      return reply(200, "{}");
    }),
  );
  const rules = [{ name: "commands", effect: "ask", tools: ["exec"] }];
  const proxy = await own(
    ProxyProcess.start(
      merge(
        settings({
          listener: { reverse_proxy_backend: agent.url, roles: ["reverse"] },
          session: { api_secret_file: secretFile },
        }),
        inbound("mcp-parser", {
          name: "tool-policy",
          config: { servers: [{ name: "agent", rules }] },
        }),
      ),
    ),
  );
  const operator = new Approver(proxy, "operator-secret");
  const params = { name: "exec", arguments: { command: "ls" } };
  const sent = request(proxy.reverse, {
    method: "POST",
    target: "/mcp",
    headers: { Host: "agent.test", "Content-Type": "application/json" },
    body: JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params }),
  });
  const ask = await operator.next();
  expect(ask.request).toMatchObject({ direction: "inbound", tool: "exec" });
  expect(served).toBe(0);
  await operator.allow(ask.id);
  expect([(await sent).status, served]).toEqual([200, 1]);
});
