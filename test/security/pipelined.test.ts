/** Requests that share a segment, the last of which cannot be served: the ones before it are answered (RFC 9112 section 9). */
import { writeFile } from "node:fs/promises";
import type { AddressInfo, Socket } from "node:net";
import { join } from "node:path";
import tls from "node:tls";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { AttackedProxy, innerConnection, RawOrigin } from "../support/attack-bench.ts";
import { RawClient } from "../support/http-client.ts";
import { eventually } from "../support/eventually.ts";
import { temporaryDirectory, TestAuthority } from "../support/certs.ts";

const surfaces = ["forward", "reverse", "bridge"] as const;
type Surface = (typeof surfaces)[number];

let origin: RawOrigin;
let inner: tls.Server;
let proxy: AttackedProxy;
/** Responses that wait until the test lets them go. */
let owed: (() => void)[] = [];
let isHeld = false;
const clients: Socket[] = [];

function serve(socket: Socket, head: string): void {
  const path = /^\S+ (\S+)/.exec(head)?.[1] ?? "";
  const answer = (): void =>
    void socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${path.length}\r\n\r\n${path}`);
  if (isHeld) owed.push(answer);
  else answer();
}

beforeAll(async () => {
  origin = await RawOrigin.listen(serve);
  const ca = await TestAuthority.create();
  const bundle = join(await temporaryDirectory(), "roots.pem");
  await writeFile(bundle, ca.caPem);
  inner = tls.createServer(await ca.server(["origin.test"]), (socket) => {
    socket.on("error", () => undefined);
    socket.on("data", (chunk: Buffer) => serve(socket, chunk.toString("latin1")));
  });
  await new Promise<void>((resolve) => inner.listen(0, "127.0.0.1", resolve));
  const { port } = inner.address() as AddressInfo;
  proxy = await AttackedProxy.start({
    egress: { allow_ips: ["127.0.0.0/8"], hosts: { "origin.test": ["127.0.0.1"] } },
    tls_bridge: { mode: "enabled", ca: "ephemeral", ports: [port], upstream_ca_bundle: bundle },
    listener: {
      roles: ["forward", "reverse"],
      reverse_proxy_addr: "127.0.0.1:0",
      reverse_proxy_backend: `http://127.0.0.1:${origin.port}`,
    },
    limits: { header_timeout: "500ms", body_timeout: "500ms" },
  });
});

afterEach(() => {
  expect(proxy.faults).toEqual([]);
  for (const socket of clients.splice(0)) socket.destroy();
  isHeld = false;
  owed = [];
});

afterAll(async () => {
  await proxy.close();
  origin.close();
  inner.close();
});

async function open(surface: Surface): Promise<RawClient> {
  const client =
    surface === "bridge"
      ? new RawClient(await innerConnection(proxy.forward, hostOf(surface), "http/1.1"))
      : await RawClient.connect(proxy[surface]);
  clients.push(client.socket);
  return client;
}

function hostOf(surface: Surface): string {
  return surface === "bridge"
    ? `origin.test:${(inner.address() as AddressInfo).port}`
    : `127.0.0.1:${origin.port}`;
}

function get(surface: Surface, path: string, fields = ""): string {
  const host = hostOf(surface);
  const target = surface === "forward" ? `http://${host}${path}` : path;
  return `GET ${target} HTTP/1.1\r\nHost: ${host}\r\n${fields}\r\n`;
}

const broken = {
  "a request line that is none": "\x01\x02 nonsense\r\n\r\n",
  "a chunk size that is none":
    "POST /c HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
  "two lengths": "POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
} as const;

for (const surface of surfaces) {
  test.each(Object.entries(broken))(`${surface}: two good requests and %s`, async (_what, bad) => {
    const client = await open(surface);
    client.send(
      get(surface, "/first") + get(surface, "/second") + bad.replace("HOST", hostOf(surface)),
    );
    const seen = await client.ended();
    expect(seen.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200", "HTTP/1.1 200", "HTTP/1.1 400"]);
    expect(seen).toMatch(/\/first[^]*\/second[^]*request\.malformed/);
  });

  test(`${surface}: more nonsense while responses are owed changes nothing`, async () => {
    isHeld = true;
    const before = await proxy.metric("authbridge_refused_total");
    const client = await open(surface);
    client.send(get(surface, "/first") + broken["a request line that is none"]);
    await eventually(() => owed.length === 1);
    for (let count = 0; count < 20; count += 1) {
      await new Promise((resolve) => client.socket.write("\x01\r\n\r\n", resolve));
    }
    owed[0]?.();
    const seen = await client.ended();
    expect(seen.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200", "HTTP/1.1 400"]);
    expect((await proxy.metric("authbridge_refused_total")) - before).toBeLessThanOrEqual(1);
  });

  test(`${surface}: what follows Connection: close is not read`, async () => {
    const client = await open(surface);
    client.send(
      get(surface, "/first") +
        get(surface, "/last", "Connection: close\r\n") +
        get(surface, "/lost"),
    );
    const seen = await client.ended();
    expect(seen.match(/HTTP\/1\.1 \d+/g)).toEqual(["HTTP/1.1 200", "HTTP/1.1 200"]);
    expect(seen).toMatch(/\/last$/);
  });

  test(`${surface}: a head that stays unfinished does not cut the response before it`, async () => {
    isHeld = true;
    const client = await open(surface);
    client.send(get(surface, "/first") + get(surface, "/second").slice(0, -4));
    await eventually(() => owed.length === 1);
    owed[0]?.();
    const seen = await client.ended();
    expect(seen).toMatch(/^HTTP\/1\.1 200 [^]*\/firstHTTP\/1\.1 408 /);
  });
}

const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const settings = "\0\0\0\x04\0\0\0\0\0";

test("bridge: HTTP/2 that was not negotiated is refused in words of our own", async () => {
  const client = await open("bridge");
  client.send(preface + settings);
  const seen = await client.ended();
  expect(seen).toMatch(/^HTTP\/1\.1 400 /);
  expect(seen).toContain("HTTP/2 with prior knowledge (RFC 9113 section 3.3) is not served");
});

test.each(["forward", "reverse"] as const)(
  "%s: HTTP/2 with prior knowledge is served",
  async (at) => {
    const client = await open(at);
    client.send(preface + settings);
    // The server's own SETTINGS.
    expect((await client.reader.exactly(9))[3]).toBe(4);
    client.close();
  },
);

test.each([
  ["behind a request", (at: Surface) => get(at, "/first") + preface + settings],
  ["without its first frame", () => preface],
  ["with another frame", () => `${preface}\0\0\0\x01\0\0\0\0\x01`],
  ["with another magic", () => `PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n${settings}`],
])("the preface of HTTP/2 %s is refused", async (_what, text) => {
  for (const at of ["forward", "reverse"] as const) {
    const client = await open(at);
    client.send(text(at));
    expect(await client.ended()).toContain("HTTP/1.1 400 ");
  }
});
