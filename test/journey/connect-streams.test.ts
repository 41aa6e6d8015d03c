/** CONNECT over HTTP/2 on the forward port, in the clear and inside TLS: each stream is a tunnel. */
import { once } from "node:events";
import { type ClientHttp2Session, type ClientHttp2Stream, constants } from "node:http2";
import { connect as connectTls } from "node:tls";
import { beforeAll, describe, expect, test } from "vitest";
import { ByteReader } from "../support/byte-reader.ts";
import { TestAuthority } from "../support/certs.ts";
import { clientCertificate } from "../support/client-certificate.ts";
import { connectStream, proxySession } from "../support/connect-stream.ts";
import { eventually } from "../support/eventually.ts";
import { frame, frameType, preface } from "../support/http2-frames.ts";
import { RawClient } from "../support/http-client.ts";
import { HttpOrigin, TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const spiffeId = "spiffe://example.org/ns/agents/sa/cert-agent";
const policy = { name: "egress-policy", config: { allow: ["**"], deny: ["denied.test"] } };
const hosts = Object.fromEntries(
  ["echo.test", "denied.test", "moving.test"].map((name) => [name, ["127.0.0.1"]]),
);

let echo: TcpOrigin;
let web: HttpOrigin;
let plain: ProxyProcess;
let secured: ProxyProcess;
let ca: string;
const client = clientCertificate(spiffeId);

beforeAll(async () => {
  echo = await own(
    TcpOrigin.start(async (connection) => {
      const { reader } = connection;
      for (
        let bytes = await reader.some(60_000);
        bytes !== undefined;
        bytes = await reader.some(60_000)
      )
        await connection.send(bytes);
      connection.end("bye");
    }),
  );
  web = await own(HttpOrigin.launch());
  const authority = await TestAuthority.create();
  ca = authority.caPem;
  const { cert, key } = await authority.server(["127.0.0.1"]);
  const file = merge(outbound(policy), { egress: { hosts, allow_ips: ["127.0.0.1/32"] } });
  plain = await own(ProxyProcess.start(settings(file)));
  const tls = { cert_file: "server.crt", key_file: "server.key", client_ca_file: "clients.pem" };
  secured = await own(
    ProxyProcess.start(settings(merge(file, { listener: { forward_proxy_tls: tls } })), {
      files: { "server.crt": cert, "server.key": key, "clients.pem": client.ca },
    }),
  );
});

const sessionTo = async (proxy: ProxyProcess): Promise<ClientHttp2Session> => {
  const session = await proxySession(proxy.forward, proxy === secured ? { ca } : {});
  await own({ close: () => session.destroy() });
  return session;
};

/** Whether or not it is an error. */
const closeOf = (stream: ClientHttp2Stream): Promise<void> =>
  new Promise((resolve) => stream.once("close", () => resolve()));

describe.each([
  ["in the clear", () => plain],
  ["inside TLS", () => secured],
])("%s", (_where, proxyOf) => {
  test("bytes go both ways, and either side may end first", async () => {
    const session = await sessionTo(proxyOf());
    const { status, stream } = await connectStream(session, `echo.test:${echo.port}`);
    expect(status).toBe(200);
    const reader = new ByteReader(stream);
    stream.write("hello");
    expect((await reader.exactly(5)).toString()).toBe("hello");
    stream.end();
    // The origin speaks after the client's end.
    expect((await reader.toEnd()).toString()).toBe("bye");
  });

  test("a hundred tunnels on one connection, each with its own bytes", async () => {
    const session = await sessionTo(proxyOf());
    const block = 100_000;
    await Promise.all(
      Array.from({ length: 100 }, async (_, index) => {
        const { status, stream } = await connectStream(session, `echo.test:${echo.port}`);
        expect(status).toBe(200);
        const bytes = Buffer.alloc(block, index);
        const reader = new ByteReader(stream);
        stream.write(bytes);
        expect((await reader.exactly(block, 60_000)).equals(bytes)).toBe(true);
        stream.end();
        await reader.toEnd();
      }),
    );
    expect(session.destroyed).toBe(false);
  });

  test("plain HTTP inside is read, and bytes that come before the 200 are kept", async () => {
    const session = await sessionTo(proxyOf());
    const authority = `echo.test:${web.port}`;
    const path = proxyOf() === plain ? "/inside-plain" : "/inside-tls";
    const stream = session.request({ ":method": "CONNECT", ":authority": authority });
    stream.write(`GET ${path} HTTP/1.1\r\nHost: ${authority}\r\nConnection: close\r\n\r\n`);
    const text = (await new ByteReader(stream).toEnd()).toString();
    expect(text).toContain("hello from the origin");
    expect(web.requestFor(path).header("host")).toBe(authority);
  });

  test("a refusal says why on its stream, and the others go on", async () => {
    const session = await sessionTo(proxyOf());
    const open = await connectStream(session, `echo.test:${echo.port}`);
    const cases: [string, Record<string, string>, number][] = [
      [`denied.test:${echo.port}`, {}, 403],
      [`DENIED.test.:${echo.port}`, {}, 403],
      [`127.0.0.2:${echo.port}`, {}, 403],
      [`echo.test:${proxyOf().forward.port}`, {}, 403],
      ["127.0.0.1:1", {}, 502],
      ["no-such-name.invalid:443", {}, 502],
      ["echo.test", {}, 400],
      [`echo.test:${echo.port}`, { host: "denied.test:443" }, 421],
      [`echo.test:0`, {}, 400],
    ];
    for (const [authority, fields, expected] of cases) {
      const { status, stream } = await connectStream(session, authority, fields);
      expect(status, authority).toBe(expected);
      const body = JSON.parse((await new ByteReader(stream).toEnd()).toString()) as object;
      expect(body).toHaveProperty("error");
    }
    open.stream.write("still here");
    expect((await new ByteReader(open.stream).exactly(10)).toString()).toBe("still here");
    const line = await proxyOf().log(
      (one) => one["outcome"] === "denied" && one["host"] === `denied.test:${echo.port}`,
    );
    expect(line).toMatchObject({ method: "CONNECT", status: 403 });
  });

  test.each(["connect-udp", "connect-tcp", "other"])(
    "an extended CONNECT of %s is refused",
    async (protocol) => {
      const session = await sessionTo(proxyOf());
      const fields = { ":protocol": protocol, ":scheme": "http", ":path": "/" };
      const { status } = await connectStream(session, `echo.test:${echo.port}`, fields);
      expect(status).toBe(405);
    },
  );

  test("a reset by either side cuts the other one", async () => {
    const session = await sessionTo(proxyOf());
    const one = await connectStream(session, `echo.test:${echo.port}`);
    one.stream.write("x");
    await new ByteReader(one.stream).exactly(1);
    const connection = echo.connections.at(-1);
    one.stream.close(constants.NGHTTP2_CANCEL);
    await connection?.closed;
    const two = await connectStream(session, `echo.test:${echo.port}`);
    two.stream.write("x");
    await new ByteReader(two.stream).exactly(1);
    const closed = closeOf(two.stream);
    echo.connections.at(-1)?.reset();
    await closed;
    expect(two.stream.rstCode).toBe(constants.NGHTTP2_CONNECT_ERROR);
    expect(session.destroyed).toBe(false);
  });

  test("a client that does not read stops its own server only", async () => {
    const source = await own(
      TcpOrigin.start(async (connection) => {
        const block = Buffer.alloc(65_536, 7);
        for (let sent = 0; sent < 128; sent += 1) if (!(await connection.send(block))) return;
        connection.end();
      }),
    );
    const session = await sessionTo(proxyOf());
    const slow = await connectStream(session, source.authority);
    slow.stream.pause();
    const quick = await connectStream(session, `echo.test:${echo.port}`);
    const reader = new ByteReader(quick.stream);
    for (let round = 0; round < 20; round += 1) {
      quick.stream.write("ping");
      expect((await reader.exactly(4)).toString()).toBe("ping");
    }
    let bytes = 0;
    slow.stream.on("data", (chunk: Buffer) => (bytes += chunk.length));
    slow.stream.resume();
    await once(slow.stream, "end");
    expect(bytes).toBe(8 * 1_048_576);
  });
});

test("a plain request inside TLS is for an http: origin, beside tunnels", async () => {
  const session = await sessionTo(secured);
  const authority = `echo.test:${web.port}`;
  const stream = session.request({ ":path": "/plain", ":scheme": "http", ":authority": authority });
  const [head] = (await once(stream, "response")) as [Record<string, unknown>];
  expect(head[":status"]).toBe(200);
  stream.resume();
});

test.each([
  [["h2"], "h2"],
  // Go offers both, and speaks HTTP/1.1 to a proxy.
  [["h2", "http/1.1"], "http/1.1"],
  [["http/1.1", "h2"], "http/1.1"],
  [["http/1.0"], "http/1.0"],
])("a client that offers %s speaks %s", async (offered, chosen) => {
  const { host, port } = secured.forward;
  const socket = connectTls({ host, port, ca, ALPNProtocols: offered });
  await own({ close: () => void socket.destroy() });
  await once(socket, "secureConnect");
  expect(socket.alpnProtocol).toBe(chosen);
});

test.each(["GET http://echo.test/ HTTP/1.1\r\nHost: echo.test\r\n\r\n", "\x05\x01\x00"])(
  "where HTTP/2 was negotiated, a client that begins with %j is served in no other protocol",
  async (beginning) => {
    const socket = connectTls({ ...secured.forward, ca, ALPNProtocols: ["h2"] });
    await own({ close: () => void socket.destroy() });
    await once(socket, "secureConnect");
    socket.write(beginning);
    // Frames of HTTP/2, or nothing before the end.
    const response = (await new ByteReader(socket).toEnd()).toString("latin1");
    expect(response.startsWith("HTTP") || response.startsWith("\x05")).toBe(false);
  },
);

test("inside TLS, what is weak is refused, and nothing is negotiated again", async () => {
  const old = { ...secured.forward, ca, maxVersion: "TLSv1.2" } as const;
  for (const weak of [{ ciphers: "ECDHE-ECDSA-AES128-SHA256" }, { ecdhCurve: "P-521" }]) {
    const refused = connectTls({ ...old, ...weak });
    await expect(once(refused, "secureConnect")).rejects.toThrow();
  }
  const socket = connectTls(old);
  await own({ close: () => void socket.destroy() });
  await once(socket, "secureConnect");
  const wire = RawClient.over(socket);
  socket.renegotiate({ rejectUnauthorized: false }, () => undefined);
  await wire.reader.toEnd();
});

test("callers are asked for by stream, with a challenge, and a certificate is one", async () => {
  const { cert, key } = await (await TestAuthority.create()).server(["127.0.0.1"]);
  const tls = { cert_file: "server.crt", key_file: "server.key", client_ca_file: "clients.pem" };
  const clients = [
    { name: "agent", password: "secret" },
    { name: "cert-agent", certificate: spiffeId },
  ];
  const proxy = await own(
    ProxyProcess.start(settings({ listener: { forward_proxy_tls: tls }, callers: { clients } }), {
      files: { "server.crt": cert, "server.key": key, "clients.pem": client.ca },
    }),
  );
  const open = async (shown: object): Promise<ClientHttp2Session> => {
    const session = await proxySession(proxy.forward, {
      ca: "",
      rejectUnauthorized: false,
      ...shown,
    });
    await own({ close: () => session.destroy() });
    return session;
  };
  const session = await open({});
  const nobody = await connectStream(session, echo.authority);
  expect(nobody.status).toBe(407);
  expect(nobody.headers["proxy-authenticate"]).toMatch(/^Basic /);
  const basic = `Basic ${Buffer.from("agent:secret").toString("base64")}`;
  const known = await connectStream(session, echo.authority, { "proxy-authorization": basic });
  expect(known.status).toBe(200);
  const { cert: shownCert, key: shownKey } = client;
  const certified = await open({ cert: shownCert, key: shownKey });
  expect((await connectStream(certified, echo.authority)).status).toBe(200);
});

test("tunnels are bounded over all connections, streams on each, and places come back", async () => {
  const limits = { max_tunnels: 3, max_streams_per_connection: 2 };
  const proxy = await own(ProxyProcess.start(settings({ limits })));
  const [one, other] = [await proxySession(proxy.forward), await proxySession(proxy.forward)];
  await own({ close: () => (one.destroy(), other.destroy()) });
  expect(one.remoteSettings.maxConcurrentStreams).toBe(2);
  const opened = [
    await connectStream(one, echo.authority),
    await connectStream(one, echo.authority),
    await connectStream(other, echo.authority),
  ];
  expect(opened.map(({ status }) => status)).toEqual([200, 200, 200]);
  const over = await connectStream(other, echo.authority);
  expect(over.status).toBe(503);
  over.stream.resume();
  for (const { stream } of opened) stream.close(constants.NGHTTP2_CANCEL);
  await eventually(async () => {
    const { status, stream } = await connectStream(other, echo.authority);
    stream.close(constants.NGHTTP2_CANCEL);
    return status === 200;
  });
});

test("a reload cuts the streams that its rules refuse, the end of the process all of them", async () => {
  const file = (deny: string) =>
    settings(
      merge(outbound({ name: "egress-policy", config: { allow: ["**"], deny: [deny] } }), {
        egress: { hosts },
        limits: { drain_timeout: "200ms" },
      }),
    );
  const proxy = await own(ProxyProcess.start(file("none.test")));
  const session = await proxySession(proxy.forward);
  await own({ close: () => session.destroy() });
  const moving = await connectStream(session, `moving.test:${echo.port}`);
  const staying = await connectStream(session, `echo.test:${echo.port}`);
  const cut = closeOf(moving.stream);
  await proxy.reload(file("moving.test"));
  moving.stream.resume();
  await cut;
  staying.stream.write("on");
  expect((await new ByteReader(staying.stream).exactly(2)).toString()).toBe("on");
  const ended = once(session, "close");
  proxy.signal("SIGTERM");
  await ended;
  expect((await proxy.ended).code).toBe(0);
});

test("several threads carry them", async () => {
  const proxy = await own(ProxyProcess.start(settings({ workers: 2 })));
  await Promise.all(
    Array.from({ length: 4 }, async () => {
      const session = await proxySession(proxy.forward);
      for (let index = 0; index < 10; index += 1) {
        const { status, stream } = await connectStream(session, echo.authority);
        expect(status).toBe(200);
        stream.close(constants.NGHTTP2_CANCEL);
      }
      session.destroy();
    }),
  );
});

test("a CONNECT with a path or a scheme is no CONNECT", async () => {
  const wire = await own(RawClient.connect(plain.forward));
  // :method CONNECT as a literal, :path / and :scheme http from the table (RFC 7541).
  const method = Buffer.concat([Buffer.of(0x02, 7), Buffer.from("CONNECT")]);
  const authority = Buffer.from(`echo.test:${echo.port}`);
  const block = Buffer.concat([method, Buffer.of(0x84, 0x86, 0x01, authority.length), authority]);
  const before = echo.connections.length;
  wire
    .send(preface)
    .send(frame(frameType.settings, 0, 0))
    .send(frame(frameType.headers, 4, 1, block));
  await wire.sees("\0");
  wire.end();
  await wire.ended();
  expect(echo.connections.length).toBe(before);
});

test.skipIf(process.platform !== "linux")(
  "a hundred streams that are reset while their callers are looked up are no fault",
  async () => {
    const endpoints = [{ host: "echo.test", port: echo.port }];
    const network_policies = { echo: { endpoints, binaries: [{ path: "**" }] } };
    const byProgram = { name: "egress-policy", config: { network_policies } };
    const proxy = await own(
      ProxyProcess.start(
        settings(merge(outbound(byProgram), { egress: { hosts, allow_ips: ["127.0.0.1/32"] } })),
      ),
    );
    const sessions = await Promise.all(Array.from({ length: 10 }, () => sessionTo(proxy)));
    const closed = sessions.flatMap((session) =>
      Array.from({ length: 10 }, () => {
        const authority = `echo.test:${echo.port}`;
        const stream = session.request({ ":method": "CONNECT", ":authority": authority });
        stream.on("error", () => undefined);
        const end = closeOf(stream);
        setImmediate(() => stream.close(constants.NGHTTP2_CANCEL));
        return end;
      }),
    );
    await Promise.all(closed);
    // A look-up ends after 3 s, which a busy machine can need: that caller is refused, and the next one is looked up anew.
    await eventually(async () => {
      const { status } = await connectStream(await sessionTo(proxy), `echo.test:${echo.port}`);
      expect(status).toBe(200);
    });
    expect(proxy.faults).toEqual([]);
  },
);
