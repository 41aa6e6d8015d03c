import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import type { Http2Session } from "node:http2";
import { connect as connectHttp2, performServerHandshake } from "node:http2";
import { createServer } from "node:net";
import type { ConnectionOptions, TLSSocket } from "node:tls";
import { connect } from "node:tls";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { CertificateAuthority } from "../../../src/tlsbridge/certificate-authority.ts";
import { LeafMinter } from "../../../src/tlsbridge/leaf-minter.ts";
import type { Terminated, Termination } from "../../../src/tlsbridge/terminator.ts";
import { Terminator } from "../../../src/tlsbridge/terminator.ts";
import { clientHello, records } from "../../support/client-hello.ts";
import type { SocketPair } from "../../support/socket-pair.ts";
import { socketPair } from "../../support/socket-pair.ts";

let authority: CertificateAuthority;
let minter: LeafMinter;
let terminator: Terminator;
let pairs: SocketPair[];

beforeEach(async () => {
  authority = await CertificateAuthority.ephemeral(Date.now());
  minter = await LeafMinter.create({ current: authority });
  terminator = new Terminator(minter);
  pairs = [];
});
afterEach(() => {
  for (const pair of pairs) pair.close();
});

async function pairUp(): Promise<SocketPair> {
  const pair = await socketPair();
  pairs.push(pair);
  return pair;
}

/** A TLS client that trusts the authority, on the client's end. */
function dial(pair: SocketPair, options: ConnectionOptions = {}): TLSSocket {
  const socket = connect({
    socket: pair.client,
    ca: authority.caPem,
    servername: "api.test",
    ALPNProtocols: ["http/1.1"],
    ...options,
  });
  socket.on("error", () => undefined);
  return socket;
}

async function handshake(
  options: ConnectionOptions = {},
  name = "api.test",
): Promise<{ client: TLSSocket; result: Termination; pair: SocketPair }> {
  const pair = await pairUp();
  const client = dial(pair, options);
  const result = await terminator.terminate(pair.server, { name });
  return { client, result, pair };
}

function expectTerminated(result: Termination): Terminated {
  if (result.kind !== "terminated") throw new Error(`handshake failed: ${result.kind}`);
  return result;
}

async function errorOf(client: TLSSocket): Promise<string> {
  const [error] = (await once(client, "error")) as [NodeJS.ErrnoException];
  return error.code ?? error.message;
}

describe("a handshake", () => {
  test.each(["TLSv1.2", "TLSv1.3"] as const)("with %s gives a clear socket", async (version) => {
    const { client, result } = await handshake({ minVersion: version, maxVersion: version });
    const { tlsSocket, alpnProtocol, servername } = expectTerminated(result);
    expect({ alpnProtocol, servername }).toEqual({
      alpnProtocol: "http/1.1",
      servername: "api.test",
    });
    tlsSocket.write("hello");
    expect(String((await once(client, "data"))[0])).toBe("hello");
    expect(client.authorized).toBe(true);
  });

  test("takes bytes that were read before", async () => {
    const pair = await pairUp();
    dial(pair);
    const [head] = (await once(pair.server.resume(), "data")) as [Buffer];
    pair.server.pause();
    expectTerminated(await terminator.terminate(pair.server, { name: "api.test", head }));
  });

  test("without server name and protocols gets the leaf of the tunnel and HTTP/1.1 (FRONT-11)", async () => {
    const pair = await pairUp();
    const client = connect({ socket: pair.client, rejectUnauthorized: false });
    const result = await terminator.terminate(pair.server, { name: "api.test" });
    expect(expectTerminated(result)).toMatchObject({
      alpnProtocol: "http/1.1",
      servername: undefined,
    });
    expect(client.getPeerX509Certificate()?.checkHost("api.test")).toBe("api.test");
  });

  test("for an address gets the leaf of the address", async () => {
    const { client, result } = await handshake({ servername: "", host: "10.0.0.1" }, "10.0.0.1");
    expectTerminated(result);
    expect(client.getPeerX509Certificate()?.checkIP("10.0.0.1")).toBe("10.0.0.1");
  });

  test("folds case of the server name and nothing else", async () => {
    const { result } = await handshake({ servername: "API.test" });
    expect(result.kind).toBe("terminated");
  });

  test.each(["TLSv1.2", "TLSv1.3"] as const)(
    "is resumed with %s, for the same name under the same authority only",
    async (version) => {
      const source = { current: authority };
      terminator = new Terminator(await LeafMinter.create(source, { maxEntries: 1 }));
      const options = { minVersion: version, maxVersion: version, rejectUnauthorized: false };
      const resumes = async (name: string, session?: Buffer): Promise<boolean> => {
        const ticket = session === undefined ? {} : { session };
        const { result } = await handshake({ ...options, ...ticket, servername: name }, name);
        return expectTerminated(result).isResumed;
      };
      const first = await handshake(options);
      const session = once(first.client, "session");
      expectTerminated(first.result).tlsSocket.write("x");
      const [ticket] = (await session) as [Buffer];
      expect(await resumes("other.test", ticket)).toBe(false);
      // The cache has dropped the context of the first handshake by now; its ticket still works.
      expect(await resumes("api.test", ticket)).toBe(true);
      source.current = await CertificateAuthority.ephemeral(Date.now());
      expect(await resumes("api.test", ticket)).toBe(false);
    },
  );

  test("a client that offers http/1.0 alone is served", async () => {
    const { client, result } = await handshake({ ALPNProtocols: ["http/1.0"] });
    const { tlsSocket, alpnProtocol } = expectTerminated(result);
    expect(alpnProtocol).toBe("http/1.0");
    client.destroy();
    tlsSocket.destroy();
  });

  test("offers h2 first, and the socket serves it", async () => {
    const { client, result } = await handshake({ ALPNProtocols: ["http/1.1", "h2"] });
    const { tlsSocket, alpnProtocol } = expectTerminated(result);
    expect(alpnProtocol).toBe("h2");
    const server: Http2Session = performServerHandshake(tlsSocket);
    server.on("stream", (stream) => {
      stream.respond({ ":status": 204 }, { endStream: true });
    });
    const session = connectHttp2("https://api.test", { createConnection: () => client });
    const request = session.request({ ":path": "/" });
    const [headers] = (await once(request, "response")) as [Record<string, unknown>];
    expect(headers[":status"]).toBe(204);
    session.destroy();
  });

  test("serves HTTP/1.1 requests one after the other (I23)", async () => {
    const { client, result } = await handshake();
    const http = createHttpServer((request, response) => response.end(request.url));
    http.emit("connection", expectTerminated(result).tlsSocket);
    for (const path of ["/one", "/two"]) {
      client.write(`GET ${path} HTTP/1.1\r\nHost: api.test\r\n\r\n`);
      expect(String((await once(client, "data"))[0])).toContain(path);
    }
  });
});

describe("a client that refuses the leaf", () => {
  test.skipIf(spawnSync("openssl", ["version"]).status !== 0)(
    "by an alert is reported with it",
    async () => {
      const pair = await pairUp();
      const process = await openssl(pair, ["-verify_return_error"]);
      const result = await terminator.terminate(pair.server, { name: "api.test" });
      process.close();
      expect(result).toEqual({ kind: "client-rejected", alert: "unknown_ca" });
      expect(pair.server.destroyed).toBe(true);
    },
  );

  test.each([
    [42, "bad_certificate"],
    [43, "unsupported_certificate"],
    [44, "certificate_revoked"],
    [45, "certificate_expired"],
    [46, "certificate_unknown"],
    [48, "unknown_ca"],
    [49, "access_denied"],
    [113, "bad_certificate_status_response"],
  ])("by alert %d is reported as %s", async (number, alert) => {
    expect(await withHello(clientHello({ sni: "api.test" }), number)).toEqual({
      kind: "client-rejected",
      alert,
    });
  });

  test("by an alert about something else is a failure of the protocol", async () => {
    expect(await withHello(clientHello({ sni: "api.test" }), 40)).toMatchObject({
      kind: "protocol",
      alert: "handshake_failure",
    });
  });

  test("without a word, as Node does, is reported as closed after the leaf", async () => {
    const { result } = await handshake({
      ca: (await CertificateAuthority.ephemeral(Date.now())).caPem,
    });
    expect(result).toEqual({ kind: "closed", afterLeaf: true });
  });

  test("by going away in the middle is reported as closed", async () => {
    const pair = await pairUp();
    pair.client.end(records(clientHello({ sni: "api.test" })).subarray(0, 50));
    const result = await terminator.terminate(pair.server, { name: "api.test" });
    expect(result).toEqual({ kind: "closed", afterLeaf: false });
  });
});

describe("a handshake is refused", () => {
  test("for another server name, with an alert (FRONT-01)", async () => {
    const pair = await pairUp();
    const client = dial(pair, { servername: "evil.test" });
    const error = errorOf(client);
    const result = await terminator.terminate(pair.server, { name: "api.test" });
    expect(result).toEqual({ kind: "sni-mismatch", servername: "evil.test" });
    expect(await error).toBe("ERR_SSL_TLSV1_UNRECOGNIZED_NAME");
    expect(minter.size).toBe(1);
  });

  test.each([
    ["an address", "10.0.0.1"],
    ["a name with an underscore", "api_test"],
    ["a longer name", "api.test.evil.test"],
    ["two root dots", "api.test.."],
  ])("for %s as server name (FRONT-12)", async (_case, sni) => {
    const result = await withHello(clientHello({ sni, alpn: ["h2"] }));
    expect(result).toEqual({ kind: "sni-mismatch", servername: sni });
  });

  test.each([
    ["300 bytes", "a".repeat(300)],
    ["NUL in it", "api.test\0.evil"],
  ])("for a server name with %s (FRONT-12)", async (_case, sni) => {
    const result = await withHello(clientHello({ sni }));
    expect(result.kind).toMatch(/^(?:protocol|sni-mismatch)$/);
  });

  test("when no protocol fits (FRONT-20)", async () => {
    const { result } = await handshake({ ALPNProtocols: ["h3"] });
    expect(result).toMatchObject({ kind: "protocol" });
  });

  test("with a version below the least", async () => {
    const { result } = await handshake({
      minVersion: "TLSv1",
      maxVersion: "TLSv1.1",
      ciphers: "DEFAULT@SECLEVEL=0",
    });
    expect(result).toMatchObject({ kind: "protocol" });
  });

  test.each(["GET / HTTP/1.1\r\nHost: api.test\r\n\r\n", "SSH-2.0-OpenSSH_9.0\r\n"])(
    "for what is not TLS: %j",
    async (text) => {
      const pair = await pairUp();
      pair.client.write(text);
      expect(await terminator.terminate(pair.server, { name: "api.test" })).toEqual({
        kind: "not-tls",
      });
    },
  );

  test("for garbage in a TLS record", async () => {
    const pair = await pairUp();
    pair.client.write(Buffer.of(22, 3, 1, 0, 4, 9, 9, 9, 9));
    const result = await terminator.terminate(pair.server, { name: "api.test" });
    expect(result).toMatchObject({ kind: "protocol" });
  });

  test("when there is no leaf", async () => {
    const pair = await pairUp();
    const result = await terminator.terminate(pair.server, { name: "not a name" });
    expect(result).toMatchObject({ kind: "no-leaf", error: { code: "request.malformed" } });
    expect(pair.server.destroyed).toBe(true);
  });

  test("when the client says nothing in time (FRONT-16)", async () => {
    const hasty = new Terminator(minter, { handshakeTimeoutMs: 5 });
    const pair = await pairUp();
    expect(await hasty.terminate(pair.server, { name: "api.test" })).toEqual({ kind: "timeout" });
    expect(pair.server.destroyed).toBe(true);
    expect(hasty.handshaking).toBe(0);
  });

  test("when its owner gives up, before or during it", async () => {
    const pair = await pairUp();
    const owner = new AbortController();
    const signal = owner.signal;
    const result = terminator.terminate(pair.server, { name: "api.test", signal });
    pair.client.write(Buffer.of(22), () => {
      owner.abort();
    });
    expect(await result).toEqual({ kind: "aborted" });
    const later = await pairUp();
    expect(await terminator.terminate(later.server, { name: "api.test", signal })).toEqual({
      kind: "aborted",
    });
    expect(later.server.destroyed).toBe(true);
  });

  test("when the socket is dead already", async () => {
    const pair = await pairUp();
    pair.server.destroy();
    expect(await terminator.terminate(pair.server, { name: "api.test" })).toEqual({
      kind: "closed",
      afterLeaf: false,
    });
  });
});

describe("after the handshake", () => {
  test("a broken record is an error and closes the socket", async () => {
    const { result, pair } = await handshake();
    const error = errorOf(expectTerminated(result).tlsSocket);
    pair.client.write(Buffer.of(23, 3, 3, 0, 3, 1, 2, 3));
    expect(await error).toMatch(/^ERR_SSL_/);
    if (!pair.server.destroyed) await once(pair.server, "close");
  });

  test("a renegotiation is not granted", async () => {
    const { client, result } = await handshake({ maxVersion: "TLSv1.2" });
    const closed = once(expectTerminated(result).tlsSocket.resume(), "close");
    // In TLS 1.2 the server finishes first.
    await once(client, "secureConnect");
    const refused = errorOf(client);
    client.renegotiate({ rejectUnauthorized: false }, () => undefined);
    client.resume().write("x");
    expect(await refused).toBe("EPROTO");
    await closed;
  });

  test("a client that leaves takes the socket with it, though the tunnel may be half open", async () => {
    const { client, result, pair } = await handshake();
    const closed = once(expectTerminated(result).tlsSocket.resume(), "close");
    client.end();
    await closed;
    expect(pair.server.destroyed).toBe(true);
  });

  test("a client that resets while it is written to throws nothing", async () => {
    const { client, result } = await handshake();
    const { tlsSocket } = expectTerminated(result);
    const closed = new Promise((resolve) => {
      tlsSocket.on("close", resolve);
    });
    client.pause();
    tlsSocket.write(Buffer.alloc(4_000_000), () => undefined);
    client.destroy();
    await closed;
  });
});

test("500 clients that stop in the middle leave nothing behind", async () => {
  const hasty = new Terminator(minter, { handshakeTimeoutMs: 50 });
  const part = records(clientHello({ sni: "api.test" })).subarray(0, 60);
  const results = await Promise.all(
    Array.from({ length: 500 }, async () => {
      const pair = await pairUp();
      pair.client.write(part);
      return hasty.terminate(pair.server, { name: "api.test" });
    }),
  );
  expect(new Set(results.map(({ kind }) => kind))).toEqual(new Set(["timeout"]));
  expect(hasty.handshaking).toBe(0);
});

/** Sends a hello made by hand, answers with a fatal alert if one is given, and returns what became of it. */
async function withHello(hello: Buffer, alert?: number): Promise<Termination> {
  const pair = await pairUp();
  pair.client.write(records(hello));
  if (alert !== undefined) {
    pair.client.once("data", () => pair.client.write(Buffer.of(21, 3, 3, 0, 2, 2, alert)));
  }
  return terminator.terminate(pair.server, { name: "api.test" });
}

/** A client that checks certificates inside the handshake and answers with alerts, as most do except Node. */
async function openssl(
  pair: SocketPair,
  options: readonly string[],
): Promise<{ close: () => void }> {
  const relay = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.pipe(pair.client).pipe(socket);
  });
  relay.listen(0, "127.0.0.1");
  await once(relay, "listening");
  const address = relay.address();
  const port = typeof address === "object" ? (address?.port ?? 0) : 0;
  const target = ["s_client", "-connect", `127.0.0.1:${port}`, "-servername", "api.test"];
  const child = spawn("openssl", [...target, ...options], { stdio: "ignore" });
  return {
    close: () => {
      child.kill();
      relay.close();
    },
  };
}
