/** Mutual TLS in front of the agent: who is let in, what is known of it, and for how long. */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { beforeAll, describe, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { eventually } from "../support/eventually.ts";
import { get, RawClient } from "../support/http-client.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { peerClient, peerSocket, peerStatus } from "../support/peer-client.ts";
import { PeerFiles } from "../support/peer-files.ts";
import { runWith, type Settings } from "../support/program.ts";
import { inbound, merge, ProxyProcess, settings } from "../support/proxy.ts";
import { SpiffeAuthority } from "../support/spiffe-authority.ts";
import { WorkloadApi } from "../support/workload-api.ts";

const own = owner();
const authority = SpiffeAuthority.create();
const foreign = SpiffeAuthority.create("other.test");
const agentSvid = authority.svid("/ns/team/sa/agent");
const peer = authority.svid("/ns/team/sa/peer");
const stranger = authority.svid("/ns/else/sa/stranger");
let agent: HttpOrigin;
let files: PeerFiles;
let permissive: ProxyProcess;
let strict: ProxyProcess;

function config(mtls: Settings, identity: PeerFiles, over: Settings = {}): Settings {
  return merge(
    settings({
      listener: { roles: ["reverse"], reverse_proxy_backend: agent.url },
      mtls,
      spiffe: identity.spiffe,
    }),
    over,
  );
}

beforeAll(async () => {
  agent = await own(HttpOrigin.launch());
  files = await PeerFiles.write(agentSvid, [authority]);
  const recorded = inbound({ name: "recorder", config: { file: "records" } });
  permissive = await own(ProxyProcess.start(config({ mode: "permissive" }, files, recorded)));
  strict = await own(ProxyProcess.start(config({ mode: "strict" }, files, recorded)));
});

const headers = { Host: "agent.test" };

describe("J13 permissive", () => {
  test("serves mutual TLS and plain requests on one port", async () => {
    expect(await peerStatus(permissive.reverse, peer, "/tls")).toBe(200);
    expect((await get(permissive.reverse, "/plain")).status).toBe(200);
    expect(agent.requestFor("/tls").header("x-forwarded-proto")).toBe("https");
    expect(agent.requestFor("/plain").header("x-forwarded-proto")).toBe("http");
  });

  test("serves a plain client that sends its request byte by byte", async () => {
    const client = await own(RawClient.connect(permissive.reverse));
    await client.dribble("GET /slow HTTP/1.1\r\nHost: agent.test\r\n\r\n");
    expect((await client.response()).status).toBe(200);
  });

  test("lets nobody in over TLS whom strict would refuse", async () => {
    expect(await peerStatus(permissive.reverse, foreign.svid("/x"), "/foreign")).toBe("refused");
    expect(agent.requestsFor("/foreign")).toEqual([]);
  });
});

describe("J14 strict", () => {
  test("closes a plain connection without a byte, and says why", async () => {
    const client = await own(RawClient.connect(strict.reverse));
    client.write({ target: "/plain-to-strict", headers });
    await client.untilClosed();
    expect(client.socket.bytesRead).toBe(0);
    expect(agent.requestsFor("/plain-to-strict")).toEqual([]);
    const line = await strict.log(
      ({ msg, reason }) => msg === "peer refused" && reason === "plain",
    );
    expect(line["problem"]).toContain("mtls.mode: strict");
    expect(await refusals("plain")).toBeGreaterThan(0);
  });

  test("serves a peer, over one connection as often as it asks", async () => {
    const client = await own(peerClient(strict.reverse, peer));
    for (let round = 0; round < 3; round += 1) {
      expect((await client.ask({ target: `/round-${round}`, headers })).status).toBe(200);
    }
  });

  test("speaks TLS 1.3, shows its own SVID, and resumes no session", async () => {
    const socket = await peerSocket(strict.reverse, peer, {
      ca: authority.caPem,
      rejectUnauthorized: true,
      checkServerIdentity: () => undefined,
      ALPNProtocols: ["h2", "http/1.1"],
    });
    const [session] = (await once(socket, "session")) as [Buffer];
    expect(socket.getProtocol()).toBe("TLSv1.3");
    expect(socket.getPeerX509Certificate()?.subjectAltName).toBe(`URI:${agentSvid.spiffeId}`);
    const again = await peerSocket(strict.reverse, peer, { session });
    expect(again.isSessionReused()).toBe(false);
    socket.destroy();
    again.destroy();
  });

  test.each([
    ["TLS 1.2", { maxVersion: "TLSv1.2" }],
    ["no protocol that is served", { ALPNProtocols: ["h3"] }],
  ] as const)("%s ends in the handshake", async (_what, options) => {
    await expect(peerSocket(strict.reverse, peer, options)).rejects.toThrow(/alert/);
  });
});

/** How many peers were refused by the strict proxy for this reason. */
function refusals(reason: string, proxy = strict): Promise<number> {
  return proxy.metric("authbridge_peers_refused_total", { direction: "inbound", reason });
}

describe("J15 J17 a certificate that is no good", () => {
  const past = new Date(Date.now() - 60_000);
  const ids = ["spiffe://example.org/a", "spiffe://example.org/b"];
  test.each([
    ["none", undefined, "no-certificate"],
    ["a foreign one", SpiffeAuthority.create().svid("/ns/team/sa/peer"), "untrusted"],
    ["one of another domain", foreign.svid("/ns/team/sa/peer"), "untrusted"],
    ["an expired one", authority.svid("/ns/team/sa/peer", { notAfter: past }), "expired"],
    [
      "one that is not valid yet",
      authority.svid("/x", { notBefore: new Date(Date.now() + 1_800_000) }),
      "expired",
    ],
    ["one with two SPIFFE IDs", authority.svid("/x", { uris: ids }), "not-spiffe"],
    [
      "one with a second URI",
      authority.svid("/x", { uris: [ids[0] ?? "", "urn:a:b"] }),
      "not-spiffe",
    ],
    [
      "one without a URI",
      authority.svid("/x", { uris: [], dnsNames: ["agent.test"] }),
      "not-spiffe",
    ],
    [
      "one whose URI is no SPIFFE ID",
      authority.svid("/x", { uris: ["https://a/b"] }),
      "not-spiffe",
    ],
    ["that of an authority", authority.svid("/x", { isAuthority: true }), "not-spiffe"],
    [
      "one of a domain without a bundle",
      authority.svid("/x", { uris: ["spiffe://third.test/x"] }),
      "untrusted",
    ],
  ])("%s is refused, and counted with its reason", async (what, svid, reason) => {
    const before = await refusals(reason);
    const path = `/bad-${what.replaceAll(" ", "-")}`;
    expect(await peerStatus(strict.reverse, svid, path)).toBe("refused");
    expect(agent.requestsFor(path)).toEqual([]);
    await eventually(async () => (await refusals(reason)) === before + 1);
    await strict.log((line) => line.msg === "peer refused" && line["reason"] === reason);
    expect(await peerStatus(strict.reverse, peer)).toBe(200);
  });
});

describe("J16 Z12 a client that says nothing", () => {
  test.each(["permissive", "strict"])("%s: keeps nobody waiting, and is closed", async (mode) => {
    const proxy = await own(
      ProxyProcess.start(config({ mode }, files, { limits: { header_timeout: "1s" } })),
    );
    const silent = await Promise.all(
      Array.from({ length: 20 }, () => own(RawClient.connect(proxy.reverse))),
    );
    expect(await peerStatus(proxy.reverse, peer)).toBe(200);
    for (const client of silent) await client.untilClosed();
    expect(await refusals("silent", proxy)).toBe(20);
  });

  test("the same where it stops in the middle of its handshake", async () => {
    const proxy = await own(
      ProxyProcess.start(config({ mode: "strict" }, files, { limits: { header_timeout: "1s" } })),
    );
    const half = await own(RawClient.connect(proxy.reverse));
    half.send("\x16\x03\x01\x02");
    expect(await peerStatus(proxy.reverse, peer)).toBe(200);
    await half.untilClosed();
    await eventually(async () => (await refusals("handshake", proxy)) === 1);
  });
});

test("a peer is known to the pipeline, the event and the log line by its SPIFFE ID", async () => {
  expect(await peerStatus(strict.reverse, peer, "/known")).toBe(200);
  const line = await strict.log((log) => log["path"] === "/known");
  expect(line["caller"]).toBe(peer.spiffeId);
  const event = await eventually(async () => {
    const { events } = (await strict.sessions("/v1/sessions/default")).json() as {
      events: Settings[];
    };
    return events.find(({ httpPath }) => httpPath === "/known") ?? false;
  });
  expect(event["caller"]).toBe(peer.spiffeId);
  expect(event["tls"]).toEqual({
    version: "TLS 1.3",
    cipherSuite: expect.stringMatching(/^TLS_AES_/) as string,
    peerSpiffeId: peer.spiffeId,
  });
  const { mtls } = (await strict.stats("/stats")).json() as { mtls: Record<string, number> };
  expect(mtls["verified"]).toBeGreaterThan(0);
});

test("curl is served with a certificate and turned away without one", async () => {
  const cert = join(files.directory, "curl.pem");
  const key = join(files.directory, "curl.key");
  await writeFile(cert, peer.cert);
  await writeFile(key, peer.key);
  const { host, port } = strict.reverse;
  const curl = (...args: string[]): Promise<{ stdout: string }> =>
    promisify(execFile)("curl", [
      "-sSk",
      "--noproxy",
      "*",
      ...args,
      `https://${host}:${port}/curl`,
    ]);
  const { stdout } = await curl("--cert", cert, "--key", key, "-w", " %{http_code}");
  expect(stdout).toBe("hello from the origin 200");
  await expect(curl()).rejects.toThrow("Command failed");
  // Over HTTP/2 its words for the same depend on what it is sending when the alert comes.
  await expect(curl("--http1.1")).rejects.toThrow(/certificate required|alert/);
});

test("a WebSocket and an event stream pass", async () => {
  const http = createServer((_request, response) => {
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write("data: one\n\n");
    setImmediate(() => response.end("data: two\n\n"));
  });
  const sockets = new WebSocketServer({ server: http });
  sockets.on("connection", (socket) => socket.on("message", (text) => socket.send(text)));
  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  const { port } = http.address() as AddressInfo;
  const backend = { listener: { reverse_proxy_backend: `http://127.0.0.1:${port}` } };
  const proxy = await own(ProxyProcess.start(config({ mode: "strict" }, files, backend)));
  const { host, port: proxyPort } = proxy.reverse;
  const { cert, key } = peer;
  const options = { cert, key, rejectUnauthorized: false };
  const socket = new WebSocket(`wss://${host}:${proxyPort}/chat`, options);
  await once(socket, "open");
  socket.send("hello");
  const [message] = (await once(socket, "message")) as [Buffer];
  expect(message.toString()).toBe("hello");
  const client = await own(peerClient(proxy.reverse, peer));
  const { text } = await client.ask({ target: "/events", headers });
  expect(text).toBe("data: one\n\ndata: two\n\n");
  socket.terminate();
  sockets.close();
  http.close();
});

describe("allowed_spiffe_ids", () => {
  const allowing = (...ids: string[]): Settings =>
    config({ mode: "strict", allowed_spiffe_ids: ids }, files);

  test.each([
    ["spiffe://example.org", 200, 200],
    ["spiffe://example.org/ns/team/sa/peer", 200, "refused"],
    ["spiffe://example.org/ns/team/*", 200, "refused"],
    ["spiffe://example.org/ns/te/*", "refused", "refused"],
    ["spiffe://other.test", "refused", "refused"],
  ])("%s: the peer %s, the stranger %s", async (id, forPeer, forStranger) => {
    const proxy = await own(ProxyProcess.start(allowing(id)));
    expect(await peerStatus(proxy.reverse, peer)).toBe(forPeer);
    expect(await peerStatus(proxy.reverse, stranger)).toBe(forStranger);
    const refused = [forPeer, forStranger].filter((one) => one === "refused").length;
    expect(await refusals("not-allowed", proxy)).toBe(refused);
  });

  test("a reload closes kept connections of peers that it takes out, and no others", async () => {
    const proxy = await own(ProxyProcess.start(allowing("spiffe://example.org")));
    const kept = await own(peerClient(proxy.reverse, peer));
    const cut = await own(peerClient(proxy.reverse, stranger));
    for (const client of [kept, cut])
      expect((await client.ask({ target: "/", headers })).status).toBe(200);
    await proxy.reload(allowing("spiffe://example.org/ns/team/*"));
    await cut.untilClosed();
    expect((await kept.ask({ target: "/", headers })).status).toBe(200);
    expect(await peerStatus(proxy.reverse, stranger)).toBe("refused");
    const line = await proxy.log(({ msg }) => msg.startsWith("connections are closed"));
    expect(line).toMatchObject({ peer: stranger.spiffeId, reason: "not-allowed", connections: 1 });
    const revoked = { direction: "inbound" };
    expect(await proxy.metric("authbridge_peers_revoked_total", revoked)).toBe(1);
  });

  test.each([
    ["a pattern in the middle", "spiffe://example.org/*/sa"],
    ["no SPIFFE ID", "example.org/agent"],
    ["a star alone", "*"],
  ])("%s is refused with its place", async (_what, id) => {
    const { code, stderr } = await runWith("check", allowing(id));
    expect(code).toBe(2);
    expect(stderr).toMatch(/mtls\.allowed_spiffe_ids\[0\]: must be spiffe:\/\/domain/);
  });

  test("an empty list, which would let in nobody, is refused", async () => {
    const { code, stderr } = await runWith("check", allowing());
    expect(code).toBe(2);
    expect(stderr).toContain("mtls.allowed_spiffe_ids");
  });
});

describe("a bundle that loses the authority in use", () => {
  test("closes what is idle, lets a running exchange finish, and refuses from then on", async () => {
    const next = SpiffeAuthority.create();
    const identity = await PeerFiles.write(next.svid("/agent"), [authority, next]);
    const proxy = await own(ProxyProcess.start(config({ mode: "strict" }, identity)));
    let release = (): void => undefined;
    const held = new Promise<void>((resolve) => (release = resolve));
    agent.on("/held", async () => {
      await held;
      return reply(200, "late");
    });
    const idle = await own(peerClient(proxy.reverse, peer));
    expect((await idle.ask({ target: "/", headers })).status).toBe(200);
    const busy = await own(peerClient(proxy.reverse, peer));
    busy.write({ target: "/held", headers });
    await eventually(() => agent.requestsFor("/held").length === 1);
    const other = await own(peerClient(proxy.reverse, next.svid("/other")));
    await identity.bundle([next]);
    await idle.untilClosed();
    release();
    const { status, text } = await busy.response();
    expect([status, text]).toEqual([200, "late"]);
    await busy.untilClosed();
    expect((await other.ask({ target: "/", headers })).status).toBe(200);
    expect(await peerStatus(proxy.reverse, peer)).toBe("refused");
    expect((await proxy.health("/readyz")).status).toBe(200);
    const revoked = { direction: "inbound" };
    expect(await proxy.metric("authbridge_peers_revoked_total", revoked)).toBe(2);
  });

  test("that has signed the own SVID: nobody is served over TLS until it is mended", async () => {
    const identity = await PeerFiles.write(agentSvid, [authority]);
    const proxy = await own(ProxyProcess.start(config({ mode: "strict" }, identity)));
    expect(await peerStatus(proxy.reverse, peer)).toBe(200);
    await identity.bundle([SpiffeAuthority.create()]);
    await eventually(async () => (await proxy.health("/readyz")).status === 503);
    expect((await proxy.health("/readyz")).text).toMatch(/no authority in it has signed/);
    expect(await peerStatus(proxy.reverse, peer)).toBe("refused");
    expect(await refusals("no-svid", proxy)).toBeGreaterThan(0);
    await identity.bundle([authority]);
    await eventually(async () => (await peerStatus(proxy.reverse, peer)) === 200);
    expect((await proxy.health("/readyz")).status).toBe(200);
  });
});

test("without an SVID the process is up and not ready, and strict does not fall back", async () => {
  const identity = await PeerFiles.write({ cert: "", key: "" }, [authority]);
  const proxy = await own(ProxyProcess.start(config({ mode: "strict" }, identity)));
  expect((await proxy.health("/healthz")).status).toBe(200);
  const { status, text } = await proxy.health("/readyz");
  expect([status, text]).toEqual([503, expect.stringContaining("svid.pem: it has no certificate")]);
  expect(await peerStatus(proxy.reverse, peer, "/nothing")).toBe("refused");
  const plain = await own(RawClient.connect(proxy.reverse));
  plain.write({ target: "/nothing", headers });
  await plain.untilClosed();
  expect(agent.requestsFor("/nothing")).toEqual([]);
  await identity.svid(agentSvid);
  await eventually(async () => (await proxy.health("/readyz")).status === 200);
  expect(await peerStatus(proxy.reverse, peer)).toBe(200);
});

test("with the Workload API: identities come, change and are taken back without a restart", async () => {
  const workloads = await own(WorkloadApi.start());
  const spiffe = { socket: workloads.address, mirror_files: false };
  const { spiffe: _files, ...rest } = config({ mode: "strict" }, files);
  const proxy = await own(ProxyProcess.start({ ...rest, spiffe }));
  expect(await peerStatus(proxy.reverse, peer)).toBe("refused");
  workloads.update({ svid: agentSvid, bundle: authority.caDer });
  await eventually(async () => (await peerStatus(proxy.reverse, peer)) === 200);
  const next = SpiffeAuthority.create();
  const kept = await own(peerClient(proxy.reverse, peer));
  expect((await kept.ask({ target: "/", headers })).status).toBe(200);
  workloads.update({ svid: next.svid("/agent"), bundle: next.caDer });
  await kept.untilClosed();
  expect(await peerStatus(proxy.reverse, peer)).toBe("refused");
  expect(await peerStatus(proxy.reverse, next.svid("/peer"))).toBe(200);
});

test("a federated domain is trusted for itself alone, also behind an intermediate", async () => {
  const identity = await PeerFiles.write(agentSvid, [authority], [foreign]);
  const proxy = await own(ProxyProcess.start(config({ mode: "strict" }, identity)));
  const below = foreign.intermediate();
  const theirs = { uris: [peer.spiffeId] };
  expect(await peerStatus(proxy.reverse, foreign.svid("/x"))).toBe(200);
  expect(await peerStatus(proxy.reverse, below.svid("/x"))).toBe(200);
  expect(await peerStatus(proxy.reverse, authority.intermediate().svid("/x"))).toBe(200);
  expect(await peerStatus(proxy.reverse, foreign.svid("/x", theirs))).toBe("refused");
  expect(await peerStatus(proxy.reverse, below.svid("/x", theirs))).toBe("refused");
  expect(await refusals("untrusted", proxy)).toBe(2);
});

test("a process with handshakes and silent clients under way drains", async () => {
  const proxy = await ProxyProcess.start(config({ mode: "strict" }, files));
  const silent = await own(RawClient.connect(proxy.reverse));
  const half = await own(RawClient.connect(proxy.reverse));
  half.send("\x16\x03\x01\x02");
  const kept = await own(peerClient(proxy.reverse, peer));
  expect((await kept.ask({ target: "/", headers })).status).toBe(200);
  proxy.signal("SIGTERM");
  expect((await proxy.ended).code).toBe(0);
  await silent.untilClosed();
});
