/**
 * HTTP/2 of every listener, judged by h2spec, whose program `H2SPEC` names; skipped where there is none.
 * `.ci/suites/h2spec` builds it and runs this file.
 */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import http2 from "node:http2";
import type { AddressInfo, Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import tls from "node:tls";
import { beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { type ServerCertificate, TestAuthority } from "../support/certs.ts";
import type { Address } from "../support/http-client.ts";
import { owner } from "../support/owner.ts";
import { peerSocket } from "../support/peer-client.ts";
import { PeerFiles } from "../support/peer-files.ts";
import type { Settings } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { SpiffeAuthority } from "../support/spiffe-authority.ts";
import { TunnelRelay, tunnelThrough } from "../support/tunnel-relay.ts";

const program = process.env["H2SPEC"] ?? "";
const own = owner();

/** Cases that the server of Node (nghttp2) fails, whoever uses it, by package and place in it. */
const ofNode: Readonly<Record<string, string>> = {
  "http2/5.1/8":
    "DATA behind RST_STREAM is dropped, as RFC 9113 section 5.1 lets a server do for a while",
  "http2/5.1/9": "HEADERS behind RST_STREAM are dropped, as above",
  "http2/5.1/11": "DATA on a closed stream is dropped, as above",
  "http2/5.1/12": "HEADERS on a closed stream are dropped, as above",
  "http2/5.1.1/2": "a stream that is numerically smaller is dropped as one that was closed",
  "http2/5.3.1/2": "PRIORITY is not read: RFC 9113 section 5.3.2 deprecates it",
  "http2/6.3/1": "PRIORITY is not read, as above",
  "http2/6.7/2": "an ACK of no PING ends the connection; the case wants the next PING to be served",
  "http2/6.9.1/3": "a window beyond 2^31-1 ends the connection, not only the stream",
};

/** Cases that fail because HTTP/1.1 is spoken on the same port: what is no preface is an HTTP/1.1 request, refused as such. */
const ofBothProtocols: Readonly<Record<string, string>> = {
  "http2/3.5/2": "the invalid preface gets 400 in HTTP/1.1, and the connection is closed",
};

/** The cases that failed, with what was expected and seen. */
async function failures(
  { port, isTls }: Place,
  cases: readonly string[] = [],
  seconds = 1,
): Promise<Record<string, string>> {
  const directory = await mkdtemp(join(tmpdir(), "h2spec-"));
  const report = join(directory, "report.xml");
  const limits = ["-S", "-o", String(seconds), "-j", report];
  const args = ["-h", "localhost", "-p", String(port), ...limits, ...(isTls ? ["-t", "-k"] : [])];
  try {
    await new Promise<void>((resolve) => {
      execFile(program, [...cases, ...args], { maxBuffer: 1 << 24 }, () => resolve());
    });
    return readReport(await readFile(report, "utf8"));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** The failures that have no reason; one that does not fail again, with more time, was disturbed by a busy machine. */
async function unexpected(place: Place): Promise<Record<string, string>> {
  const reasons = { ...ofNode, ...place.expected };
  const failed = await failures(place);
  expect(Object.keys(failed)).toContain("http2/6.7/2");
  const cases = Object.keys(failed).filter((id) => !Object.hasOwn(reasons, id));
  const again: Record<string, string> = {};
  for (const id of cases)
    for (const why of Object.values(await failures(place, [id], 5))) again[id] = why;
  return again;
}

function readReport(xml: string): Record<string, string> {
  const failed: Record<string, string> = {};
  const places = new Map<string, number>();
  const cases = /<testcase package="([^"]+)" classname="([^"]*)"[^>]*>([\s\S]*?)<\/testcase>/g;
  for (const [, section = "", title = "", result = ""] of xml.matchAll(cases)) {
    const place = (places.get(section) ?? 0) + 1;
    places.set(section, place);
    if (/<(?:failure|error)/.test(result))
      failed[`${section}/${place}`] = `${title}: ${result.replaceAll(/<[^>]*>/g, " ").trim()}`;
  }
  return failed;
}

const elsewhere = "127.0.0.9";
const hosts = { localhost: [elsewhere] };
let certificate: ServerCertificate;
let authority: TestAuthority;

/** An origin of `localhost`, as the proxy knows it, with the port that h2spec is told. */
async function originAt(port: number, isTls: boolean): Promise<void> {
  const server = isTls ? http2.createSecureServer(certificate) : http2.createServer();
  await listen(server, port);
}

async function listen(server: Server, port: number, host = elsewhere): Promise<number> {
  server.on("sessionError", () => undefined);
  server.on("request", (request: http2.Http2ServerRequest, response: http2.Http2ServerResponse) => {
    request.on("error", () => undefined).resume();
    response.on("error", () => undefined);
    response.end("hello from the origin");
  });
  server.listen(port, host);
  await once(server, "listening");
  await own({ close: () => void server.close() });
  return (server.address() as AddressInfo).port;
}

async function proxyWith(over: Settings): Promise<ProxyProcess> {
  return own(ProxyProcess.start(settings(merge({ egress: { hosts } }, over))));
}

/** The port of a relay into tunnels to `localhost` and that port. */
async function tunnelPort(proxy: () => Address): Promise<number> {
  const relay: TunnelRelay = await own(
    TunnelRelay.start(() => tunnelThrough(proxy(), `localhost:${relay.port}`)),
  );
  return relay.port;
}

interface Place {
  readonly port: number;
  readonly isTls: boolean;
  /** What may fail there besides what Node's own server does. */
  readonly expected?: Readonly<Record<string, string>>;
}

const places: Readonly<Record<string, () => Promise<Place>>> = {
  "the server of Node alone": async () => ({
    port: await listen(http2.createServer(), 0, "127.0.0.1"),
    isTls: false,
  }),
  "the forward port": async () => {
    const proxy = await proxyWith({});
    const { port } = proxy.forward;
    await originAt(port, false);
    return { port, isTls: false, expected: ofBothProtocols };
  },
  "the forward port inside TLS": async () => {
    const directory = await authority.write();
    const proxy = await proxyWith({
      listener: {
        forward_proxy_tls: {
          cert_file: join(directory, "tls.crt"),
          key_file: join(directory, "tls.key"),
        },
      },
    });
    // h2spec asks for `https:` where it speaks TLS itself, which this port refuses before the faulty frames have come.
    const { port } = await own(
      TunnelRelay.start(() => peerSocket(proxy.forward, undefined, { ALPNProtocols: ["h2"] })),
    );
    await originAt(port, false);
    return { port, isTls: false };
  },
  "inside a CONNECT": async () => {
    const proxy = await proxyWith(outbound({ name: "denier", config: { path: "/denied" } }));
    const port = await tunnelPort(() => proxy.forward);
    await originAt(port, false);
    return { port, isTls: false, expected: ofBothProtocols };
  },
  "the bridge": async () => {
    const port = await tunnelPort(() => proxy.forward);
    const proxy: BridgeProxy = await own(
      BridgeProxy.start({
        ports: [port],
        originCa: authority.caPem,
        file: { egress: { allow_ips: ["127.0.0.0/8"], hosts } },
      }),
    );
    await originAt(port, true);
    return { port, isTls: true };
  },
  "the reverse port": async () => {
    const backend = await listen(http2.createServer(), 0);
    const proxy = await proxyWith({
      listener: { reverse_proxy_backend: `h2c://${elsewhere}:${backend}` },
    });
    return { port: proxy.reverse.port, isTls: false, expected: ofBothProtocols };
  },
  "the reverse port inside mutual TLS": async () => {
    const trust = SpiffeAuthority.create();
    const files = await PeerFiles.write(trust.svid("/ns/team/sa/agent"), [trust]);
    const peer = trust.svid("/ns/team/sa/peer");
    const backend = await listen(http2.createServer(), 0);
    const proxy = await proxyWith({
      listener: { roles: ["reverse"], reverse_proxy_backend: `h2c://${elsewhere}:${backend}` },
      mtls: { mode: "strict" },
      spiffe: files.spiffe,
    });
    const front = tls.createServer({ ...certificate, ALPNProtocols: ["h2"] });
    const { port } = await own(
      TunnelRelay.start(() => peerSocket(proxy.reverse, peer, { ALPNProtocols: ["h2"] }), front),
    );
    return { port, isTls: true };
  },
};

describe.skipIf(program === "")("h2spec", () => {
  const results = new Map<string, Record<string, string>>();
  beforeAll(async () => {
    authority = await TestAuthority.create();
    certificate = await authority.server(["localhost"]);
    await Promise.all(
      Object.entries(places).map(async ([name, open]) => {
        results.set(name, await unexpected(await open()));
      }),
    );
  }, 240_000);

  test.each(Object.keys(places))("on %s", (name) => {
    expect(results.get(name)).toEqual({});
  });
});
