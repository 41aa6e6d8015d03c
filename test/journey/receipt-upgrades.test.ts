/** Receipts where a connection changes its protocol: upgrades, WebSockets over HTTP/2, CONNECT, a parent's words about it. */
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import { afterAll, beforeAll, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { connectStream, proxySession } from "../support/connect-stream.ts";
import { RawClient } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import type { Settings } from "../support/program.ts";
import { StubParent } from "../support/stub-parent.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const own = owner();
const field = "authbridge-receipt";
const host = "api.allowed.test";
const scratch = mkdtempSync(join(tmpdir(), "authbridge-receipt-upgrades-"));
const keyFile = join(scratch, "key.pem");
const { privateKey } = generateKeyPairSync("ed25519");
writeFileSync(keyFile, privateKey.export({ type: "pkcs8", format: "pem" }));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

const forged = "Authbridge-Receipt: forged\r\nX-Kept: yes\r\nauthbridge-receipt: forged\r\n\r\n";
const responses: Readonly<Record<string, string>> = {
  "/switch": `HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n${forged}`,
  "/stay": `HTTP/1.1 401 No\r\nContent-Length: 0\r\n${forged}`,
};

let authority: TestAuthority;
let plain: HttpOrigin;
let secure: TlsOrigin;
let parent: StubParent;

beforeAll(async () => {
  authority = await TestAuthority.create();
  plain = await own(HttpOrigin.launch(({ target }) => responses[target]));
  secure = await own(TlsOrigin.start(await authority.server([host])));
  secure.server.on("upgrade", ({ url }: IncomingMessage, socket: Duplex) => {
    socket.on("error", () => undefined);
    socket.write(responses[url ?? ""] ?? "");
  });
  parent = await own(StubParent.start());
});

let logs = 0;
const start = (workers: number, over: Settings = {}): Promise<BridgeProxy> =>
  own(
    BridgeProxy.start({
      ports: [secure.port],
      originCa: authority.caPem,
      // What no plugin reads is bytes, and stays so.
      plugins: [{ name: "egress-policy", config: { allow: ["127.0.0.1", host, "evil.test"] } }],
      file: {
        workers,
        listener: {
          roles: ["forward", "reverse"],
          forward_proxy_addr: "127.0.0.1:0",
          reverse_proxy_addr: "127.0.0.1:0",
          reverse_proxy_backend: plain.url,
          session_api_addr: "127.0.0.1:0",
          health_addr: "127.0.0.1:0",
        },
        audit: {
          path: join(scratch, `audit-${(logs += 1)}.jsonl`),
          signing_key_file: keyFile,
          receipts: {},
        },
        ...over,
      },
    }),
  );

const upgrade = (target: string, at: string, wish: string): string =>
  `GET ${target} HTTP/1.1\r\nHost: ${at}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${wish === "" ? "" : `${field}: ${wish}\r\n`}\r\n`;

type Door = (proxy: BridgeProxy, path: string, wish: string) => Promise<string>;

async function headOver(client: RawClient, request: string): Promise<string> {
  await own(client);
  client.send(request);
  return client.reader.until("\r\n\r\n");
}

const doors: Readonly<Record<string, Door>> = {
  "absolute form": async (proxy, path, wish) =>
    headOver(
      await RawClient.connect(proxy.forward),
      upgrade(`${plain.url}${path}`, plain.authority, wish),
    ),
  "a CONNECT": async (proxy, path, wish) => {
    const { socket } = await proxy.connect(plain.authority);
    return headOver(RawClient.over(socket), upgrade(path, plain.authority, wish));
  },
  "a backend": async (proxy, path, wish) =>
    headOver(await RawClient.connect(proxy.reverse), upgrade(path, "localhost", wish)),
  "opened TLS": async (proxy, path, wish) =>
    headOver(await proxy.http1(secure.at(host)), upgrade(path, secure.at(host), wish)),
  "opened HTTP/2": async (proxy, path, wish) => {
    const session = await proxy.http2(secure.at(host));
    await own({ close: () => session.destroy() });
    if (session.remoteSettings?.enableConnectProtocol !== true)
      await once(session, "remoteSettings");
    const stream = session.request({
      ":method": "CONNECT",
      ":protocol": "websocket",
      ":scheme": "https",
      ":authority": secure.at(host),
      ":path": path,
      "sec-websocket-version": "13",
      ...(wish === "" ? {} : { [field]: wish }),
    });
    stream.on("error", () => undefined);
    const [fields] = (await once(stream, "response")) as [Record<string, unknown>];
    return Object.entries(fields)
      .map(([name, value]) => `${name}: ${String(value)}\r\n`)
      .join("");
  },
};

test.each([1, 2])(
  "no upgrade brings a receipt of an origin's making, with workers: %i",
  { timeout: 60_000 },
  async (workers) => {
    const proxy = await start(workers);
    for (const [name, open] of Object.entries(doors)) {
      for (const path of Object.keys(responses)) {
        for (const wish of ["", "request", "forged"]) {
          const head = await open(proxy, path, wish);
          const what = `${name} ${path} ${wish}`;
          expect(head, what).toMatch(/x-kept: yes/i);
          expect(head, what).not.toContain("forged");
          const given = head.match(/authbridge-receipt: ey/gi) ?? [];
          expect(given, what).toHaveLength(wish === "request" ? 1 : 0);
        }
      }
    }
  },
);

test.each([1, 2])(
  "no CONNECT has one, whatever a parent proxy says, with workers: %i",
  async (workers) => {
    const proxy = await start(workers, {
      upstream_proxy: { http_proxy: parent.url, https_proxy: parent.url },
      tls_bridge: { mode: "disabled" },
    });
    const there = "evil.test:9999";
    const session = await proxySession(proxy.forward);
    await own({ close: () => session.destroy() });
    for (const [status, expected] of [
      ["200 OK", 200],
      ["403 No", 502],
    ] as const) {
      parent.act = () => `HTTP/1.1 ${status}\r\n${forged}`;
      const client = await own(RawClient.connect(proxy.forward));
      client.send(`CONNECT ${there} HTTP/1.1\r\nHost: ${there}\r\n${field}: request\r\n\r\n`);
      const head = await client.reader.until("\r\n\r\n");
      expect(head).toContain(` ${expected} `);
      expect(head).not.toMatch(/authbridge-receipt|x-kept/i);
      const stream = await connectStream(session, there, { [field]: "request" });
      expect(stream.status).toBe(expected);
      expect(Object.keys(stream.headers)).not.toContain(field);
      expect(Object.keys(stream.headers)).not.toContain("x-kept");
    }
    expect(parent.heads.join("")).not.toMatch(/authbridge-receipt/i);
  },
);
