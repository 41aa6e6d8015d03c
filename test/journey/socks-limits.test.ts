/** What bounds SOCKS5 clients: who they are, how many, how long, and what a reload or the end of the process makes of them. */
import { once } from "node:events";
import { connect as connectTls } from "node:tls";
import { beforeAll, describe, expect, test } from "vitest";
import { TestAuthority } from "../support/certs.ts";
import { clientCertificate } from "../support/client-certificate.ts";
import { eventually } from "../support/eventually.ts";
import { get, RawClient } from "../support/http-client.ts";
import { TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runWith } from "../support/program.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import {
  openSocks,
  socksCredentials,
  socksGreeting,
  socksOver,
  socksRequest,
} from "../support/socks-client.ts";

const own = owner();
const withPort = { listener: { socks_proxy_addr: "127.0.0.1:0" } };
const callers = { clients: [{ name: "agent", password: "secret: è" }] };
const spiffeId = "spiffe://example.org/ns/agents/sa/cert-agent";
let echo: TcpOrigin;

beforeAll(async () => {
  echo = await own(
    TcpOrigin.start(async (connection) => {
      const { reader } = connection;
      for (let bytes = await reader.some(60_000); bytes !== undefined; bytes = await reader.some())
        await connection.send(bytes);
      connection.end();
    }),
  );
});

const start = (file: object = {}): Promise<ProxyProcess> =>
  own(ProxyProcess.start(settings(merge(withPort, { ...file }))));

describe("where callers say who they are", () => {
  let proxy: ProxyProcess;
  beforeAll(async () => {
    proxy = await start({ callers });
  });

  test("a name and a password let them in, and the log has the name alone", async () => {
    for (const port of [proxy.forward, proxy.address("socks")]) {
      const { client, reply } = await openSocks(port, "127.0.0.1", echo.port, [
        "agent",
        "secret: è",
      ]);
      expect(reply).toBe(0);
      client.close();
    }
    const line = await proxy.log((one) => one["caller"] === "agent");
    expect(line).toMatchObject({ method: "CONNECT", outcome: "ok" });
    expect(proxy.stderr).not.toContain("secret: è");
  });

  test.each([
    ["a wrong password", ["agent", "other"]],
    ["an unknown name", ["nobody", "secret: è"]],
    ["an empty password", ["agent", ""]],
    ["no name", ["", "secret: è"]],
    ["255 bytes of each", ["a".repeat(255), "b".repeat(255)]],
  ] as const)("%s is refused, counted, and nothing is dialled", async (_what, credentials) => {
    const refused = (): Promise<number> =>
      proxy.metric("authbridge_refused_total", { reason: "caller" });
    const [before, dialled] = [await refused(), echo.connections.length];
    const { client, reply } = await openSocks(proxy.forward, "127.0.0.1", echo.port, credentials);
    await own(client);
    expect(reply).toBeUndefined();
    await client.reader.toEnd();
    expect(await refused()).toBe(before + 1);
    expect(echo.connections.length).toBe(dialled);
  });

  test("no authentication is not enough, alone or beside a method that nobody has", async () => {
    for (const greeting of [socksGreeting, Buffer.of(5, 2, 0, 1)]) {
      const client = await own(RawClient.connect(proxy.forward));
      client.send(greeting);
      expect([...(await client.reader.toEnd())]).toEqual([5, 255]);
    }
    expect(
      await proxy.metric("authbridge_socks_dialogues_total", { outcome: "caller" }),
    ).toBeGreaterThan(0);
  });

  test("the dialogue in pieces and in one is the same", async () => {
    const bytes = Buffer.concat([
      Buffer.of(5, 3, 0, 1, 2),
      socksCredentials("agent", "secret: è"),
      socksRequest("127.0.0.1", echo.port),
      Buffer.from("early"),
    ]);
    const whole = await own(RawClient.connect(proxy.forward));
    whole.send(bytes);
    const pieces = await own(RawClient.connect(proxy.forward));
    pieces.socket.setNoDelay(true);
    for (const byte of bytes) {
      pieces.send(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    for (const client of [whole, pieces]) {
      const answer = await client.reader.exactly(2 + 2 + 10 + 5);
      expect([...answer.subarray(0, 6)]).toEqual([5, 2, 1, 0, 5, 0]);
      expect(answer.subarray(14).toString()).toBe("early");
    }
  });
});

test("TLS on the forward port carries SOCKS, and a certificate is a caller", async () => {
  const authority = await TestAuthority.create();
  const { key, cert } = await authority.server(["127.0.0.1"]);
  const { ca: clientCa, ...shown } = clientCertificate(spiffeId);
  const proxy = await own(
    ProxyProcess.start(
      settings({
        listener: {
          forward_proxy_tls: {
            cert_file: "server.crt",
            key_file: "server.key",
            client_ca_file: "clients.pem",
          },
        },
        callers: { clients: [{ name: "cert-agent", certificate: spiffeId }] },
      }),
      { files: { "server.crt": cert, "server.key": key, "clients.pem": clientCa } },
    ),
  );
  const reach = async (certificate: object): Promise<number | undefined> => {
    const { host, port } = proxy.forward;
    const socket = connectTls({ host, port, ca: authority.caPem, ...certificate });
    await once(socket, "secureConnect");
    const wire = await own(RawClient.over(socket));
    return (await socksOver(wire, socksRequest("127.0.0.1", echo.port))).reply;
  };
  expect(await reach(shown)).toBe(0);
  expect(await reach({})).toBeUndefined();
});

test("who takes too long is closed, in whichever step, and counted", async () => {
  const proxy = await start({ limits: { header_timeout: "200ms" }, callers });
  const steps = [
    Buffer.of(5),
    Buffer.of(5, 1, 2),
    Buffer.concat([Buffer.of(5, 1, 2), Buffer.of(1, 5)]),
    Buffer.concat([Buffer.of(5, 1, 2), socksCredentials("agent", "secret: è")]),
  ];
  for (const bytes of steps) {
    const client = await own(RawClient.connect(proxy.address("socks")));
    client.send(bytes);
    await client.reader.toEnd();
  }
  expect(await proxy.metric("authbridge_socks_dialogues_total", { outcome: "timeout" })).toBe(4);
  expect(
    await proxy.metric("authbridge_refused_total", { reason: "timeout" }),
  ).toBeGreaterThanOrEqual(4);
});

test("a thousand that say nothing more keep nobody out, and end in time", async () => {
  const proxy = await start({ limits: { header_timeout: "2s" } });
  const idle = await Promise.all(
    Array.from({ length: 1_000 }, async () => {
      const client = await RawClient.connect(proxy.address("socks"));
      client.send(Buffer.of(5, 200, 0));
      return client;
    }),
  );
  const { client, reply } = await openSocks(proxy.address("socks"), "127.0.0.1", echo.port);
  expect(reply).toBe(0);
  client.close();
  await Promise.all(idle.map((one) => one.untilClosed(60_000)));
});

test("connections and tunnels are bounded, and places come back", async () => {
  const few = await start({ limits: { max_connections: 4, max_tunnels: 2 } });
  const port = few.address("socks");
  const opened = [
    await openSocks(port, "127.0.0.1", echo.port),
    await openSocks(port, "127.0.0.1", echo.port),
  ];
  const third = await openSocks(port, "127.0.0.1", echo.port);
  expect(third.reply).toBe(1);
  third.client.close();
  expect(await few.metric("authbridge_refused_total", { reason: "tunnels" })).toBe(1);
  for (const { client } of opened) client.close();
  await eventually(async () => {
    const { client, reply } = await openSocks(port, "127.0.0.1", echo.port);
    client.close();
    return reply === 0;
  });
});

test("a reload cuts what its rules refuse, and keys of the port need a restart", async () => {
  const file = (deny: string): object =>
    settings(
      merge(
        outbound({ name: "egress-policy", config: { allow: ["**"], deny: [deny] } }),
        merge(withPort, { egress: { hosts: { "moving.test": ["127.0.0.1"] } } }),
      ),
    );
  const proxy = await own(ProxyProcess.start(file("other.test") as never));
  const { client, reply } = await openSocks(proxy.address("socks"), "moving.test", echo.port);
  await own(client);
  expect(reply).toBe(0);
  await proxy.reload(file("moving.test") as never);
  await client.reader.toEnd();
  const changed = merge(file("moving.test") as never, { listener: { forward_proxy_socks: false } });
  expect(await proxy.refusedReload(changed)).toContain("listener.forward_proxy_socks");
});

test("several threads share the port and its bounds", async () => {
  const proxy = await start({ workers: 2, limits: { max_tunnels: 40 } });
  const all = await Promise.all(
    Array.from({ length: 40 }, () => openSocks(proxy.address("socks"), "127.0.0.1", echo.port)),
  );
  expect(all.map(({ reply }) => reply)).toEqual(all.map(() => 0));
  const over = await openSocks(proxy.address("socks"), "127.0.0.1", echo.port);
  expect(over.reply).toBe(1);
  for (const { client } of [...all, over]) client.close();
});

test("the end of the process ends dialogues at once and tunnels at the limit", async () => {
  const proxy = await start({ limits: { drain_timeout: "200ms" } });
  const begun = await own(RawClient.connect(proxy.address("socks")));
  begun.send(socksGreeting);
  await begun.reader.exactly(2);
  const { client } = await openSocks(proxy.address("socks"), "127.0.0.1", echo.port);
  await own(client);
  proxy.signal("SIGTERM");
  await begun.reader.toEnd().catch(() => undefined);
  await client.reader.toEnd().catch(() => undefined);
  expect((await proxy.ended).code).toBe(0);
});

test("the forward port speaks HTTP alone where the file says so", async () => {
  const proxy = await start({ listener: { forward_proxy_socks: false } });
  const client = await own(RawClient.connect(proxy.forward));
  client.send(socksGreeting);
  expect((await client.response()).status).toBe(400);
});

test("the port of its own tells who takes it for a web proxy", async () => {
  const proxy = await start();
  const answer = await get(proxy.address("socks"), "http://any.test/");
  expect(answer.status).toBe(400);
  expect(answer.text).toContain("listener.socks_proxy_addr");
  const client = await own(RawClient.connect(proxy.address("socks")));
  const connect = await client.exchange(
    "CONNECT any.test:443 HTTP/1.1\r\nHost: any.test:443\r\n\r\n",
  );
  expect(connect.status).toBe(400);
});

test("check warns of passwords in the clear, and of a port that two surfaces want", async () => {
  const certified = await (await TestAuthority.create()).server(["127.0.0.1"]);
  const files = { "server.crt": certified.cert, "server.key": certified.key };
  const tls = { forward_proxy_tls: { cert_file: "server.crt", key_file: "server.key" } };
  const warned = await runWith("check", settings(merge(withPort, { listener: tls, callers })), {
    files,
  });
  expect(warned.stdout + warned.stderr).toMatch(/socks_proxy_addr.*in the clear/);
  const clash = { listener: { socks_proxy_addr: "127.0.0.1:18081", forward_proxy_addr: ":18081" } };
  const refused = await runWith("check", settings(clash));
  expect(refused.code).not.toBe(0);
  expect(refused.stdout + refused.stderr).toContain("socks_proxy_addr");
});
