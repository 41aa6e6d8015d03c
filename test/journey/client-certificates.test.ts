/** Origins that ask for a client certificate: shown by host, renewed while requests run, and named where it is missing. */
import { once } from "node:events";
import { createServer as createHttps } from "node:https";
import { createSecureServer } from "node:http2";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo, Server, Socket } from "node:net";
import type { PeerCertificate, TLSSocket } from "node:tls";
import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority, temporaryDirectory } from "../support/certs.ts";
import { type IssuedCertificate, leafCertificate } from "../support/client-certificate.ts";
import { within } from "../support/eventually.ts";
import { get } from "../support/http-client.ts";
import { owner } from "../support/owner.ts";
import { PeerFiles } from "../support/peer-files.ts";
import { runWith } from "../support/program.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";
import { SpiffeAuthority } from "../support/spiffe-authority.ts";

const own = owner();
const host = "mutual.test";
const other = "other.test";

type Version = "TLSv1.2" | "TLSv1.3";
type Protocol = "http/1.1" | "h2";

/** An origin that lets in nobody without a certificate of the authority; it says whose it was. */
class AskingOrigin {
  readonly seen: string[] = [];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
    server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    server.on("tlsClientError", () => undefined);
    server.on("sessionError", () => undefined);
    server.on("request", (request: IncomingMessage, response: ServerResponse) => {
      const { stream } = request as unknown as { stream?: { session?: { socket: TLSSocket } } };
      const socket = stream?.session?.socket ?? (request.socket as TLSSocket);
      const { subject } = socket.getPeerCertificate() as Partial<PeerCertificate>;
      const name = String(subject?.CN ?? "nobody");
      this.seen.push(name);
      request.resume();
      response.end(name);
    });
  }

  static async start(
    version: Version,
    protocol: Protocol,
    isRequired = true,
  ): Promise<AskingOrigin> {
    const options = {
      ...(await authority.server([host, other, "localhost"])),
      ca: issued.ca,
      requestCert: true,
      rejectUnauthorized: isRequired,
      minVersion: version,
      maxVersion: version,
    };
    const server = protocol === "h2" ? createSecureServer(options) : createHttps(options);
    const origin = new AskingOrigin(server);
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return origin;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }
}

let authority: TestAuthority;
let issued: IssuedCertificate;
let folder: string;
const fileOf = (name: string): string => join(folder, name);

/** Puts a pair in place, each file in one step. */
async function place(name: string, { cert, key }: { readonly cert: string; readonly key: string }) {
  for (const [kind, text] of [
    ["crt", cert],
    ["key", key],
  ] as const) {
    await writeFile(fileOf(`${name}.${kind}.new`), text);
    await rename(fileOf(`${name}.${kind}.new`), fileOf(`${name}.${kind}`));
  }
}

const entry = (name: string, hosts: readonly string[] = [host]) => ({
  hosts,
  cert_file: fileOf(`${name}.crt`),
  key_file: fileOf(`${name}.key`),
});

function start(
  origin: AskingOrigin,
  bridge: Readonly<Record<string, unknown>>,
  file: Readonly<Record<string, unknown>> = {},
): Promise<BridgeProxy> {
  return BridgeProxy.start({
    ports: [origin.port],
    originCa: authority.caPem,
    names: [host, other],
    bridge,
    file,
  });
}

beforeAll(async () => {
  authority = await TestAuthority.create();
  issued = leafCertificate("agent-1", [{ type: 2, value: "agent" }]);
  folder = await temporaryDirectory();
  await place("agent", issued);
});

async function ask(proxy: BridgeProxy, at: string, protocol: Protocol): Promise<string> {
  if (protocol === "http/1.1") return (await proxy.get(at, "/")).text;
  const session = await proxy.http2(at);
  try {
    const stream = session.request({ ":path": "/" });
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    await within("an end", once(stream, "end"));
    return Buffer.concat(chunks).toString();
  } finally {
    session.destroy();
  }
}

const cases = (["TLSv1.2", "TLSv1.3"] as const).flatMap((version) =>
  (["http/1.1", "h2"] as const).map((protocol) => [version, protocol] as const),
);

describe.each(cases)("%s, %s", (version, protocol) => {
  test("the certificate of the host is shown to it and to no other", async () => {
    const origin = await own(AskingOrigin.start(version, protocol, false));
    const proxy = await own(start(origin, { client_certificates: [entry("agent")] }));
    expect(await ask(proxy, `${host}:${origin.port}`, protocol)).toBe("agent-1");
    expect(await ask(proxy, `${other}:${origin.port}`, protocol)).toBe("nobody");
  });

  test("an origin that asks for one that is not there: what to set is named", async () => {
    const origin = await own(AskingOrigin.start(version, protocol));
    const proxy = await own(start(origin, {}));
    const text = await ask(proxy, `${host}:${origin.port}`, protocol);
    expect(JSON.parse(text)).toMatchObject({ error: "upstream.tls" });
    expect(text).toContain("tls_bridge.client_certificates");
    expect(text).toContain("tls_bridge.passthrough_hosts");
    expect(origin.seen).toEqual([]);
  });

  test("one that is not taken is named", async () => {
    await place("stranger", leafCertificate("stranger", [{ type: 2, value: "x" }]));
    const origin = await own(AskingOrigin.start(version, protocol));
    const proxy = await own(start(origin, { client_certificates: [entry("stranger")] }));
    const text = await ask(proxy, `${host}:${origin.port}`, protocol);
    expect(JSON.parse(text)).toMatchObject({ error: "upstream.tls" });
    expect(text).toContain("does not take the one of tls_bridge.client_certificates[0]");
  });

  test("it is replaced under a hundred requests at once, and none is lost", async () => {
    const name = `rotating-${version}-${protocol.slice(0, 2)}`;
    await place(name, issued);
    const origin = await own(AskingOrigin.start(version, protocol));
    const proxy = await own(start(origin, { client_certificates: [entry(name)] }));
    const at = `${host}:${origin.port}`;
    const hundred = () => Promise.all(Array.from({ length: 100 }, () => ask(proxy, at, protocol)));
    const first = hundred();
    await place(name, issued.renew("agent-2", [{ type: 2, value: "agent" }]));
    const during = await hundred();
    expect(
      [...new Set([...(await first), ...during])].filter((one) => !/^agent-[12]$/.test(one)),
    ).toEqual([]);
    await expect.poll(() => ask(proxy, at, protocol), { timeout: 20_000 }).toBe("agent-2");
    expect(new Set(await hundred())).toEqual(new Set(["agent-2"]));
  });
});

test("a certificate that is not there yet refuses in words, and serves once it has come", async () => {
  const origin = await own(AskingOrigin.start("TLSv1.3", "http/1.1"));
  const proxy = await own(start(origin, { client_certificates: [entry("late")] }, { workers: 2 }));
  const at = `${host}:${origin.port}`;
  const refused = await proxy.get(at, "/");
  expect(refused.status).toBe(502);
  expect(refused.text).toContain("tls_bridge.client_certificates[0]");
  expect(refused.text).toContain("does not exist");
  await place("late", issued);
  await expect
    .poll(async () => (await proxy.get(at, "/")).text, { timeout: 20_000 })
    .toBe("agent-1");
});

test("a client's own certificate reaches the origin through tls_bridge.passthrough_hosts", async () => {
  const origin = await own(AskingOrigin.start("TLSv1.3", "http/1.1"));
  const proxy = await own(start(origin, { passthrough_hosts: [host] }));
  const at = `${host}:${origin.port}`;
  const wire = await proxy.http1(at, { cert: issued.cert, key: issued.key, ca: authority.caPem });
  const answer = await wire.exchange(`GET / HTTP/1.1\r\nHost: ${at}\r\n\r\n`);
  expect(answer.text).toBe("agent-1");
  wire.close();
});

test("the SVID is shown, and replaced without a restart", async () => {
  const spiffe = SpiffeAuthority.create();
  const files = await PeerFiles.write(spiffe.svid("/agent"), [spiffe]);
  const ids: string[] = [];
  const server = createHttps(
    {
      ...(await authority.server([host])),
      ca: spiffe.caPem,
      requestCert: true,
      rejectUnauthorized: true,
    },
    (request, response) => {
      ids.push(String((request.socket as TLSSocket).getPeerCertificate().subjectaltname));
      response.end("let in");
    },
  );
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  await own({ close: () => (server.closeAllConnections(), void server.close()) });
  const { port } = server.address() as AddressInfo;
  const proxy = await own(
    BridgeProxy.start({
      ports: [port],
      originCa: authority.caPem,
      names: [host],
      bridge: { client_certificates: [{ hosts: ["*.test"], svid: true }] },
      file: { spiffe: files.spiffe },
    }),
  );
  expect((await proxy.get(`${host}:${port}`, "/")).text).toBe("let in");
  await files.svid(spiffe.svid("/renewed"));
  await expect
    .poll(
      async () => {
        await proxy.get(`${host}:${port}`, "/");
        return ids.at(-1);
      },
      { timeout: 20_000 },
    )
    .toBe("URI:spiffe://example.org/renewed");
  expect(ids[0]).toBe("URI:spiffe://example.org/agent");
});

test("an https backend of the reverse proxy is shown its certificate", async () => {
  const origin = await own(AskingOrigin.start("TLSv1.3", "http/1.1"));
  await writeFile(fileOf("origins.pem"), authority.caPem);
  const proxy = await own(
    ProxyProcess.start(
      settings({
        listener: { roles: ["reverse"], reverse_proxy_backend: `https://localhost:${origin.port}` },
        tls_bridge: {
          upstream_ca_bundle: fileOf("origins.pem"),
          client_certificates: [entry("agent", ["localhost"])],
        },
      }),
    ),
  );
  expect((await get(proxy.reverse, "/")).text).toBe("agent-1");
});

test("the doctor says what can be shown", async () => {
  const bridge = { client_certificates: [entry("agent"), entry("nowhere")] };
  const { stdout } = await runWith("doctor", settings({ tls_bridge: bridge }));
  // Certificates of the test are valid for an hour.
  expect(stdout).toMatch(/FAIL {2}certs .*agent\.crt can be shown, expires .* 7 days/);
  expect(stdout).toMatch(/FAIL {2}certs .*client_certificates\[1\].*does not exist/);
});

test("check finds files that do not fit, hosts that are none, and entries without either source", async () => {
  await place("odd", { cert: issued.cert, key: leafCertificate("x", []).key });
  const check = (client_certificates: readonly unknown[]) =>
    BridgeProxy.run("check", { ports: [443], bridge: { client_certificates } });
  const odd = await check([entry("odd")]);
  expect(odd.code).not.toBe(0);
  expect(odd.stdout + odd.stderr).toContain("client_certificates[0].cert_file");
  expect(odd.stdout + odd.stderr).toContain("of another key");
  const none = await check([{ hosts: ["["], cert_file: "a", key_file: "b" }, { hosts: ["x"] }]);
  expect(none.stdout + none.stderr).toContain("or svid: true");
  const svid = await check([{ hosts: ["x"], svid: true }]);
  expect(svid.stdout + svid.stderr).toContain("needs the spiffe block");
});
