/** SOCKS5 clients, on a port of their own and on the forward port: they get what a CONNECT gets. */
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { type Address, RawClient } from "../support/http-client.ts";
import { TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";
import { openSocks, socksGreeting, socksOver, socksRequest } from "../support/socks-client.ts";

const own = owner();
const onItsOwn = { listener: { socks_proxy_addr: "127.0.0.1:0" } };
const hosts = Object.fromEntries(
  ["echo.test", "denied.test", "a_b.test"].map((name) => [name, ["127.0.0.1"]]),
);
const policy = {
  name: "egress-policy",
  config: { allow: ["**"], deny: ["denied.test"] },
};

let echo: TcpOrigin;
let banner: TcpOrigin;
let proxy: ProxyProcess;

beforeAll(async () => {
  echo = await own(
    TcpOrigin.start(async (connection) => {
      const { reader } = connection;
      for (let bytes = await reader.some(); bytes !== undefined; bytes = await reader.some())
        await connection.send(bytes);
      connection.end();
    }),
  );
  banner = await own(
    TcpOrigin.start(async (connection) => {
      await connection.send("220 ready\r\n");
      await connection.reader.some();
    }),
  );
  proxy = await own(
    ProxyProcess.start(
      settings(
        merge(
          outbound(policy),
          merge(onItsOwn, { egress: { hosts, allow_ips: ["127.0.0.1/32"] } }),
        ),
      ),
    ),
  );
});

const ports: readonly (readonly [string, () => Address])[] = [
  ["the forward port", () => proxy.forward],
  ["a port of its own", () => proxy.address("socks")],
];

describe.each(ports)("on %s", (_name, at) => {
  test.each([
    ["a name", "echo.test"],
    ["a name in capitals with its root dot", "ECHO.test."],
    ["a name with an underscore", "a_b.test"],
    ["an IPv4 address", "127.0.0.1"],
    ["an IPv4 address inside IPv6", "::ffff:127.0.0.1"],
    ["an address as a name", Buffer.from("127.0.0.1")],
    ["an IPv6 address as a name", Buffer.from("::ffff:127.0.0.1")],
    ["an address in hexadecimal", "0x7f.1"],
    ["an address as one number", "2130706433"],
  ])("%s is connected to, and bytes go both ways", async (_what, host) => {
    const { client, reply } = await openSocks(at(), host, echo.port);
    await own(client);
    expect(reply).toBe(0);
    client.send("hello");
    expect((await client.reader.exactly(5)).toString()).toBe("hello");
    client.end();
    await client.reader.toEnd();
  });

  test.each([
    ["a denied name", "denied.test", 2],
    ["a denied name in capitals with its root dot", "Denied.Test.", 2],
    ["an address that the guard forbids", "127.0.0.2", 3],
    ["the metadata service", "169.254.169.254", 3],
    ["the metadata service as a number", "2852039166", 3],
    ["an IPv6 address as a name that the guard forbids", Buffer.from("::1"), 3],
    ["a name that does not resolve", "no-such-name.invalid", 4],
    ["a space", "echo .test", 1],
    ["NUL", "echo.test\0.evil", 1],
    ["a control character", "echo\n.test", 1],
    ["bytes outside ASCII", "\u00e9cho.test", 1],
    ["an empty name", Buffer.alloc(0), 1],
    ["an empty label", "echo..test", 1],
    ["two root dots", "echo.test..", 1],
    ["a port inside the name", "echo.test:80", 1],
    ["user information", "echo.test@denied.test", 1],
    ["a path", "echo.test/x", 1],
    ["an encoded dot", "echo%2etest", 1],
    ["a zone", "fe80::1%eth0", 1],
    ["a zone in brackets", Buffer.from("[fe80::1%25eth0]"), 1],
    ["an unclosed bracket", Buffer.from("[::1"), 1],
    ["a label of 255 bytes", Buffer.alloc(255, "a"), 1],
    ["labels of 255 bytes", Buffer.from(`${"a.".repeat(127)}a`), 1],
  ])("%s is refused", async (_what, host, code) => {
    const { client, reply } = await openSocks(at(), host, echo.port);
    await own(client);
    expect(reply).toBe(code);
    await client.reader.toEnd();
  });

  test("a connection that is refused says so, and port 0 is none", async () => {
    const refused = await openSocks(at(), "127.0.0.1", 1);
    await own(refused.client);
    expect(refused.reply).toBe(5);
    const none = await openSocks(at(), "echo.test", 0);
    await own(none.client);
    expect(none.reply).toBe(1);
  });

  test.each(["forward", "socks", "sessions", "stats", "health"])(
    "the proxy's own %s port is never dialled",
    async (name) => {
      const { client, reply } = await openSocks(at(), "echo.test", proxy.address(name).port);
      await own(client);
      expect(reply).toBe(3);
    },
  );

  test.each([
    ["BIND", 2],
    ["UDP ASSOCIATE", 3],
    ["a command that there is not", 9],
  ])("%s is refused in the protocol", async (_what, command) => {
    const client = await own(RawClient.connect(at()));
    const { reply } = await socksOver(client, socksRequest("echo.test", echo.port, command));
    expect(reply).toBe(7);
    await client.reader.toEnd();
  });

  test.each([
    ["SOCKS4", Buffer.from([4, 1, 0, 80, 127, 0, 0, 1, 0]), [0, 91, 0, 0, 0, 0, 0, 0]],
    ["SOCKS4a", Buffer.from([4, 1, 0, 80, 0, 0, 0, 1, 0, 97, 0]), [0, 91, 0, 0, 0, 0, 0, 0]],
    ["no method", Buffer.of(5, 0), [5, 255]],
    ["a method that nobody has", Buffer.of(5, 1, 1), [5, 255]],
    [
      "another version in the request",
      Buffer.of(5, 1, 0, 4, 1, 0, 1),
      [5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0],
    ],
    [
      "a reserved byte",
      Buffer.of(5, 1, 0, 5, 1, 1, 1, 127, 0, 0, 1, 0, 80),
      [5, 0, 5, 1, 0, 1, 0, 0, 0, 0, 0, 0],
    ],
    ["an address type", Buffer.of(5, 1, 0, 5, 1, 0, 2), [5, 0, 5, 8, 0, 1, 0, 0, 0, 0, 0, 0]],
    ["credentials of another version", Buffer.of(5, 1, 2, 5, 1), [5, 2, 1, 1]],
  ])("%s is answered and closed", async (_what, bytes, answer) => {
    const client = await own(RawClient.connect(at()));
    client.send(bytes);
    expect([...(await client.reader.toEnd())]).toEqual(answer);
  });

  test("byte by byte it is the same, and what comes behind it before the reply is kept", async () => {
    const client = await own(RawClient.connect(at()));
    client.socket.setNoDelay(true);
    const all = Buffer.concat([
      socksGreeting,
      socksRequest("echo.test", echo.port),
      Buffer.from("early"),
    ]);
    for (const byte of all) {
      client.send(Uint8Array.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    const answer = await client.reader.exactly(2 + 10 + 5);
    expect(answer.subarray(12).toString()).toBe("early");
  });

  test("all at once is the same", async () => {
    const client = await own(RawClient.connect(at()));
    const late = Buffer.alloc(100_000, "x");
    client.send(Buffer.concat([socksGreeting, socksRequest("echo.test", echo.port), late]));
    expect((await client.reader.exactly(12))[3]).toBe(0);
    expect(await client.reader.exactly(late.length)).toEqual(late);
  });

  test("credentials that nobody asks for are taken", async () => {
    const { client, reply } = await openSocks(at(), "echo.test", echo.port, ["any", "body"]);
    await own(client);
    expect(reply).toBe(0);
  });

  test("a server that speaks first is heard", async () => {
    const { client, reply } = await openSocks(at(), "echo.test", banner.port);
    await own(client);
    expect(reply).toBe(0);
    expect(await client.reader.until("\r\n")).toBe("220 ready\r\n");
  });

  test("a hundred at once", async () => {
    const all = await Promise.all(
      Array.from({ length: 100 }, async (_, index) => {
        const { client, reply } = await openSocks(at(), "echo.test", echo.port);
        expect(reply).toBe(0);
        const text = `tunnel ${index}`;
        client.send(text);
        expect((await client.reader.exactly(text.length)).toString()).toBe(text);
        return client;
      }),
    );
    for (const client of all) client.close();
  });

  test("leaves the event, the log line and the counts of a CONNECT", async () => {
    const before = await proxy.metric("authbridge_tunnels_opened_total");
    const { client } = await openSocks(at(), "echo.test", echo.port);
    client.close();
    await eventually(async () => (await proxy.metric("authbridge_tunnels_opened_total")) > before);
    const denied = await openSocks(at(), "denied.test", echo.port);
    denied.client.close();
    const line = await proxy.log(
      (one) => one["outcome"] === "denied" && one["host"] === `denied.test:${echo.port}`,
    );
    expect(line).toMatchObject({ method: "CONNECT", direction: "outbound", status: 403 });
    await eventually(async () =>
      (await proxy.sessions("/v1/sessions/default")).text.includes("denied.test"),
    );
  });
});
