/** Mutual TLS from sidecar to sidecar: what leaves in strict, to whom, and while identities rotate. */
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import http2 from "node:http2";
import { createServer, type Server } from "node:tls";
import { type AddressInfo, connect } from "node:net";
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { openTunnel, RawClient, type Address, type RawResponse } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { PeerFiles } from "../support/peer-files.ts";
import { StubParent } from "../support/stub-parent.ts";
import { runWith, type Settings, testThreads } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";
import { SpiffeAuthority, type TestSvid } from "../support/spiffe-authority.ts";

const own = owner();
const authority = SpiffeAuthority.create();
const agentSvid = authority.svid("/ns/team/sa/agent");
const toolSvid = authority.svid("/ns/team/sa/tool");
const hosts = { "tool.test": ["127.0.0.1"], "plain.test": ["127.0.0.1"] };
let tool: HttpOrigin;
let plain: PlainOrigin;
let agentFiles: PeerFiles;
let toolFiles: PeerFiles;
/** The sidecar of the tool. */
let toolSide: ProxyProcess;
/** The sidecar of the agent. */
let agentSide: ProxyProcess;

/** An origin that speaks HTTP and no TLS: to a ClientHello it says 400. */
class PlainOrigin {
  readonly paths: (string | undefined)[] = [];
  readonly #server = createHttpServer((request, response) => {
    this.paths.push(request.url);
    response.end("plain");
  });

  async start(): Promise<this> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return this;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

function inboundSide(identity: PeerFiles, mtls: Settings = { mode: "strict" }): Settings {
  return settings({
    listener: { roles: ["reverse"], reverse_proxy_backend: tool.url },
    mtls,
    spiffe: identity.spiffe,
  });
}

function outboundSide(identity: PeerFiles, mtls: Settings = { mode: "strict" }): Settings {
  return settings({
    listener: { roles: ["forward"] },
    egress: { hosts, allow_ips: ["127.0.0.0/8"] },
    mtls,
    spiffe: identity.spiffe,
  });
}

beforeAll(async () => {
  tool = await own(HttpOrigin.launch());
  plain = await own(new PlainOrigin().start());
  agentFiles = await PeerFiles.write(agentSvid, [authority]);
  toolFiles = await PeerFiles.write(toolSvid, [authority]);
  toolSide = await own(ProxyProcess.start(inboundSide(toolFiles)));
  agentSide = await own(ProxyProcess.start(outboundSide(agentFiles)));
});

async function ask(
  proxy: ProxyProcess,
  { port }: Pick<Address, "port">,
  path = "/",
  host = "tool.test",
): Promise<RawResponse> {
  const client = await RawClient.connect(proxy.forward);
  try {
    return await client.ask({
      target: `http://${host}:${port}${path}`,
      headers: { Host: `${host}:${port}` },
    });
  } finally {
    client.close();
  }
}

function refusals(proxy: ProxyProcess, reason: string): Promise<number> {
  return proxy.metric("authbridge_peers_refused_total", { direction: "outbound", reason });
}

describe("strict", () => {
  test("a plain request of the agent reaches the tool, and each side knows the other", async () => {
    const answer = await ask(agentSide, toolSide.reverse, "/between");
    expect([answer.status, answer.text]).toEqual([200, "hello from the origin"]);
    expect(tool.requestFor("/between").header("x-forwarded-proto")).toBe("https");
    const line = await toolSide.log((log) => log["path"] === "/between");
    expect(line["caller"]).toBe(agentSvid.spiffeId);
    const sent = await agentSide.log((log) => log["path"] === "/between");
    expect(sent["upstream_peer"]).toBe(toolSvid.spiffeId);
    const event = await eventually(async () => {
      const { events } = (await agentSide.sessions("/v1/sessions/default")).json() as {
        events: Settings[];
      };
      const isMeant = ({ httpPath, phase }: Settings): boolean =>
        httpPath === "/between" && phase === "response";
      return events.find(isMeant) ?? false;
    });
    expect(event["tls"]).toMatchObject({ version: "TLS 1.3", peerSpiffeId: toolSvid.spiffeId });
  });

  test("a WebSocket handshake takes the same way", async () => {
    tool.on(
      "/socket",
      () => "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    );
    const client = await own(RawClient.connect(agentSide.forward));
    const { port } = toolSide.reverse;
    client.write({
      target: `http://tool.test:${port}/socket`,
      headers: {
        Host: `tool.test:${port}`,
        Connection: "Upgrade",
        Upgrade: "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
      },
    });
    expect((await client.response()).status).toBe(101);
  });

  test("an origin that speaks no TLS gets no request: 502 with the key", async () => {
    const answer = await ask(agentSide, plain, "/never", "plain.test");
    expect(answer.status).toBe(502);
    expect(answer.json()).toMatchObject({ error: "upstream.tls" });
    expect(answer.text).toContain("(mtls)");
    expect(plain.paths).not.toContain("/never");
  });

  test("a parent proxy is asked for a tunnel and sees nothing of the request", async () => {
    const parent = await own(StubParent.start());
    const way = { upstream_proxy: { http_proxy: parent.url, https_proxy: parent.url } };
    const proxy = await own(ProxyProcess.start(merge(outboundSide(agentFiles), way)));
    expect((await ask(proxy, toolSide.reverse, "/through-the-parent")).status).toBe(200);
    expect(parent.lines).toEqual([expect.stringMatching(/^CONNECT /)]);
    expect(tool.requestsFor("/through-the-parent")).toHaveLength(1);
  });

  test("a tunnel is left as it is", async () => {
    const { client, answer } = await openTunnel(agentSide.forward, `plain.test:${tool.port}`);
    await own(client);
    expect(answer.status).toBe(200);
    expect((await client.ask({ target: "/tunnelled", headers: { Host: "x" } })).status).toBe(200);
  });
});

/** A server of mutual TLS that is no sidecar. */
async function tlsServer({ cert, key }: Pick<TestSvid, "cert" | "key">): Promise<Server> {
  const server = createServer({ cert, key, requestCert: true, rejectUnauthorized: false });
  server.on("secureConnection", (socket) => {
    socket.on("error", () => undefined);
    socket.on("data", () => socket.write(reply(200, "hello from nobody")));
  });
  server.on("tlsClientError", () => undefined);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

describe("a call of gRPC", () => {
  /** Its response by way of the agent's sidecar. */
  async function call({ port }: Pick<Address, "port">): Promise<http2.IncomingHttpHeaders> {
    const session = http2.connect(`http://tool.test:${port}`, {
      createConnection: () => connect(agentSide.forward),
    });
    await own({ close: () => session.destroy() });
    const stream = session.request({
      ":method": "POST",
      ":path": "/package.Service/Method",
      "content-type": "application/grpc",
      te: "trailers",
    });
    stream.end("message");
    const [fields] = (await once(stream, "response")) as [http2.IncomingHttpHeaders];
    return fields;
  }

  test("leaves over HTTP/2, which the peer has agreed to", async () => {
    const { cert, key } = toolSvid;
    const terms = { requestCert: true, rejectUnauthorized: false };
    const server = http2.createSecureServer({ cert, key, ...terms });
    server.on("stream", (stream: http2.ServerHttp2Stream, fields: http2.IncomingHttpHeaders) => {
      stream.respond({ ":status": 200, "x-scheme": fields[":scheme"] });
      stream.end("answer");
    });
    await own({ close: () => void server.close() });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const fields = await call(server.address() as AddressInfo);
    expect([fields[":status"], fields["x-scheme"]]).toEqual([200, "https"]);
  });

  test("is not sent to a peer that agrees to no protocol", async () => {
    const server = await tlsServer(toolSvid);
    const before = await refusals(agentSide, "handshake");
    const fields = await call(server.address() as AddressInfo);
    expect(fields["grpc-message"]).toContain("the peer does not speak HTTP/2");
    await eventually(async () => (await refusals(agentSide, "handshake")) > before);
    server.close();
  });
});

describe("a server that is no good", () => {
  const past = new Date(Date.now() - 60_000);
  const uris = ["spiffe://example.org/a", "spiffe://example.org/b"];
  test.each([
    ["a foreign authority", SpiffeAuthority.create().svid("/ns/team/sa/tool"), "untrusted"],
    ["another trust domain", SpiffeAuthority.create("other.test").svid("/tool"), "untrusted"],
    ["an expired certificate", authority.svid("/x", { notAfter: past }), "expired"],
    ["two SPIFFE IDs", authority.svid("/x", { uris }), "not-spiffe"],
    [
      "a certificate for its host name alone",
      authority.svid("/x", { uris: [], dnsNames: ["tool.test"] }),
      "not-spiffe",
    ],
  ])("%s: 502 with the reason, and no request", async (_what, svid, reason) => {
    const server = await tlsServer(svid);
    const before = await refusals(agentSide, reason);
    const answer = await ask(agentSide, server.address() as AddressInfo);
    expect([answer.status, answer.json()]).toMatchObject([502, { error: "upstream.tls" }]);
    expect(answer.text).not.toContain("nobody");
    await eventually(async () => (await refusals(agentSide, reason)) > before);
    server.close();
  });

  test("one that is not in allowed_upstream_spiffe_ids", async () => {
    const mtls = { mode: "strict", allowed_upstream_spiffe_ids: [toolSvid.spiffeId] };
    const proxy = await own(ProxyProcess.start(outboundSide(agentFiles, mtls)));
    expect((await ask(proxy, toolSide.reverse)).status).toBe(200);
    const server = await tlsServer(authority.svid("/ns/team/sa/other"));
    const answer = await ask(proxy, server.address() as AddressInfo);
    expect(answer.status).toBe(502);
    expect(answer.text).toContain("mtls.allowed_upstream_spiffe_ids");
    server.close();
  });
});

test("permissive leaves plain requests as they are, but to the hosts that are listed", async () => {
  const mtls = { mode: "permissive", outbound_hosts: ["tool.*"] };
  const proxy = await own(ProxyProcess.start(outboundSide(agentFiles, mtls)));
  expect((await ask(proxy, toolSide.reverse)).status).toBe(200);
  expect((await ask(proxy, plain, "/plainly", "plain.test")).status).toBe(200);
  // What is listed is never spoken to plainly.
  expect((await ask(proxy, plain, "/listed")).status).toBe(502);
  expect(plain.paths).toContain("/plainly");
  expect(plain.paths).not.toContain("/listed");
  const { code, stderr } = await runWith(
    "check",
    outboundSide(agentFiles, { outbound_hosts: ["ok.test", "a[b"] }),
  );
  expect([code, stderr]).toEqual([2, expect.stringContaining("mtls.outbound_hosts[1]")]);
});

test("without an SVID nothing leaves, and the reason is told", async () => {
  const identity = await PeerFiles.write({ cert: "", key: "" }, [authority]);
  const proxy = await own(ProxyProcess.start(outboundSide(identity)));
  const answer = await ask(proxy, toolSide.reverse);
  expect(answer.status).toBe(502);
  expect(answer.text).toContain("there is no X.509-SVID to show");
  await identity.svid(agentSvid);
  await eventually(async () => (await ask(proxy, toolSide.reverse)).status === 200);
});

describe("while identities rotate", () => {
  /** Keeps a hundred requests under way until `during` is over; the statuses of all of them. */
  async function underLoad(during: () => Promise<void>, target: ProxyProcess, from: ProxyProcess) {
    const statuses = new Map<string, number>();
    const load = { isOver: false };
    const worker = async (): Promise<void> => {
      const client = await RawClient.connect(from.forward);
      const { port } = target.reverse;
      while (!load.isOver) {
        const { status, text } = await client.ask({
          target: `http://tool.test:${port}/`,
          headers: { Host: `tool.test:${port}` },
        });
        const outcome = status === 200 ? "200" : `${status} ${text}`;
        statuses.set(outcome, (statuses.get(outcome) ?? 0) + 1);
      }
      client.close();
    };
    const workers = Array.from({ length: 100 }, worker);
    await during();
    load.isOver = true;
    await Promise.all(workers);
    return statuses;
  }

  test("no request is lost, with a hundred at once", async () => {
    const next = SpiffeAuthority.create();
    const callee = await PeerFiles.write(toolSvid, [authority]);
    const caller = await PeerFiles.write(agentSvid, [authority]);
    const target = await own(ProxyProcess.start(inboundSide(callee)));
    const from = await own(ProxyProcess.start(outboundSide(caller)));
    const renewed = (item: string, times: number): Promise<unknown> =>
      eventually(() =>
        [target, from].every(
          ({ logs }) =>
            logs.filter((line) => line.msg.includes("renewed") && line["item"] === item).length >=
            times * testThreads,
        ),
      );
    const statuses = await underLoad(
      async () => {
        await renewed("x509_svid", 1);
        // New SVIDs of the same authority, then another authority beside it, SVIDs of that one, and the first one out.
        for (const files of [callee, caller]) await files.svid(authority.svid("/ns/team/sa/both"));
        await renewed("x509_svid", 2);
        for (const files of [callee, caller]) await files.bundle([authority, next]);
        await renewed("x509_bundle", 2);
        for (const files of [callee, caller]) await files.svid(next.svid("/ns/team/sa/both"));
        await renewed("x509_svid", 3);
        for (const files of [callee, caller]) await files.bundle([next]);
        await renewed("x509_bundle", 3);
      },
      target,
      from,
    );
    expect([...statuses.keys()]).toEqual(["200"]);
    expect((await ask(from, target.reverse)).status).toBe(200);
  });
});
