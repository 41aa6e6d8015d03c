/** Tunnels: who gets one, and that what goes through them is exactly what was sent. */
import { beforeAll, describe, expect, test } from "vitest";
import { eventually } from "../support/eventually.ts";
import { openTunnel, RawClient, renderRequest } from "../support/http-client.ts";
import { TcpOrigin, type OriginConnection } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let echo: TcpOrigin;
let proxy: ProxyProcess;

/** Answers every chunk with itself behind "echo:", and the end with an end. */
async function echoBack(connection: OriginConnection): Promise<void> {
  for (let bytes = await connection.reader.some(60_000); bytes;) {
    await connection.send(`echo:${bytes.toString("latin1")}`);
    bytes = await connection.reader.some(60_000);
  }
  connection.end();
}

beforeAll(async () => {
  echo = await own(TcpOrigin.start(echoBack));
  proxy = await own(
    ProxyProcess.start(
      settings({
        listener: { skip_hosts: ["skipped.test"] },
        egress: { hosts: { "skipped.test": ["127.0.0.1"], "refused.test": ["127.0.0.1"] } },
        limits: { tunnel_idle_timeout: "600ms" },
        ...outbound(
          { name: "recorder", config: { file: "records" } },
          { name: "connect-denier", config: { host: "refused.test" } },
          // These need a request: the connect stage must not run them (the trap of the Go program).
          {
            name: "token-exchange",
            config: {
              token_url: "http://127.0.0.1:9/token",
              default_policy: "exchange",
              audience_from_host: true,
              identity: { type: "client-secret", client_id: "a", client_secret: "b" },
            },
          },
          { name: "static-inject", config: { source: "mappings", mappings: { x: "y" } } },
        ),
      }),
    ),
  );
});

async function tunnelTo(authority: string): Promise<RawClient> {
  const { client, answer } = await openTunnel(proxy.forward, authority);
  await own(client);
  expect(answer.status, answer.text).toBe(200);
  return client;
}

async function serve(
  talk: (connection: OriginConnection) => Promise<void> | void,
): Promise<TcpOrigin> {
  return own(TcpOrigin.start(talk));
}

describe("a tunnel", () => {
  test("G1: carries bytes both ways, three times over, and needs no credential", async () => {
    const { client, answer } = await openTunnel(proxy.forward, echo.authority);
    await own(client);
    expect(answer.head.startLine).toBe("HTTP/1.1 200 Connection Established");
    expect(answer.head.names).not.toContain("content-length");
    expect(answer.head.names).not.toContain("transfer-encoding");
    for (const word of ["hello", "again", "bye"]) {
      client.send(word);
      expect((await client.reader.exactly(5 + word.length)).toString()).toBe(`echo:${word}`);
    }
  });

  test("the connect stage sees the destination and nothing else", async () => {
    await tunnelTo(echo.authority);
    const records = await proxy.records("records");
    expect(records.findLast((line) => line["hook"] === "request")).toMatchObject({
      stage: "connect",
      method: "CONNECT",
      path: "",
      destination: echo.authority,
      host: echo.authority,
    });
  });

  test("G2: a denial answers before anything is dialled", async () => {
    const connections = echo.connections.length;
    const { client, answer } = await openTunnel(proxy.forward, `refused.test:${echo.port}`);
    await own(client);
    // Most clients show this line and nothing else of the response to a CONNECT.
    expect(answer.head.startLine).toBe("HTTP/1.1 403 Forbidden: no tunnel");
    expect(answer.json()).toMatchObject({
      error: "policy.forbidden",
      message: "no tunnel",
      plugin: "connect-denier",
    });
    expect(echo.connections).toHaveLength(connections);
  });

  test("G3: an origin that refuses is 502", async () => {
    const { client, answer } = await openTunnel(proxy.forward, "127.0.0.1:1");
    await own(client);
    expect(answer.status).toBe(502);
    expect(answer.json()).toMatchObject({ error: "upstream.refused" });
  });

  test("a name that does not resolve is 502", async () => {
    const { client, answer } = await openTunnel(proxy.forward, "no-such-name.invalid:443");
    await own(client);
    expect(answer.status).toBe(502);
  });

  test("G16: a skipped host gets its tunnel without any plugin", async () => {
    const client = await tunnelTo(`skipped.test:${echo.port}`);
    client.send("x");
    expect((await client.reader.exactly(6)).toString()).toBe("echo:x");
    const records = await proxy.records("records");
    expect(records.filter((line) => String(line["host"]).startsWith("skipped"))).toEqual([]);
  });

  test("bytes that came with the CONNECT are not lost", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    const connect = renderRequest({ method: "CONNECT", target: echo.authority });
    client.send(Buffer.concat([connect, Buffer.from("early")]));
    expect((await client.response("CONNECT")).status).toBe(200);
    expect((await client.reader.exactly(10)).toString()).toBe("echo:early");
  });

  test("FRONT-17: bytes that came with a refused CONNECT go nowhere", async () => {
    const connections = echo.connections.length;
    const client = await own(RawClient.connect(proxy.forward));
    const connect = renderRequest({ method: "CONNECT", target: `refused.test:${echo.port}` });
    client.send(
      Buffer.concat([connect, Buffer.from(`GET http://${echo.authority}/ HTTP/1.1\r\n`)]),
    );
    expect((await client.response("CONNECT")).status).toBe(403);
    expect(echo.connections).toHaveLength(connections);
  });

  test("an origin that speaks first is heard", async () => {
    const banner = await serve(async (connection) => {
      await connection.send("220 ready\r\n");
    });
    const client = await tunnelTo(banner.authority);
    expect(await client.reader.until("\r\n")).toBe("220 ready\r\n");
  });

  test("an end from the client is an end at the origin, and answers still come back", async () => {
    const summing = await serve(async (connection) => {
      const all = await connection.reader.toEnd();
      await connection.send(`got ${all.length}, `);
      connection.end("then the rest");
    });
    const client = await tunnelTo(summing.authority);
    client.send("12345");
    client.end();
    expect((await client.reader.toEnd()).toString()).toBe("got 5, then the rest");
  });

  test("an end from the origin is an end at the client, which can still send", async () => {
    let received = "";
    const halfClosing = await serve(async (connection) => {
      connection.end("goodbye");
      received = (await connection.reader.toEnd()).toString();
    });
    const client = await tunnelTo(halfClosing.authority);
    expect((await client.reader.toEnd()).toString()).toBe("goodbye");
    client.send("last words");
    client.end();
    await eventually(() => received === "last words");
  });

  test("a reset of one side closes the other", async () => {
    let there: OriginConnection | undefined;
    const resetting = await serve((connection) => {
      there = connection;
    });
    const client = await tunnelTo(resetting.authority);
    await eventually(() => there !== undefined);
    there?.socket.resetAndDestroy();
    await client.untilClosed();
    const other = await tunnelTo(echo.authority);
    const connection = echo.connections.at(-1);
    other.socket.resetAndDestroy();
    await eventually(() => connection?.isClosed ?? false);
  });

  test("a silent tunnel is closed at its idle limit, on both sides", async () => {
    const client = await tunnelTo(echo.authority);
    const connection = echo.connections.at(-1);
    client.send("x");
    await client.reader.exactly(6);
    await client.untilClosed(4000);
    await eventually(() => connection?.isClosed ?? false);
  });

  test("traffic in either direction keeps a tunnel open past the idle limit", async () => {
    let ticks = 0;
    const ticking = await serve(async (connection) => {
      while (await connection.send("t")) {
        ticks += 1;
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    });
    const client = await tunnelTo(ticking.authority);
    const read = client.reader.exactly(12);
    expect((await read).toString()).toBe("t".repeat(12));
    expect(ticks).toBeGreaterThanOrEqual(12);
  });

  test("an origin that sends without end waits for a client that does not read", async () => {
    let sent = 0;
    const chunk = Buffer.alloc(0x10000, "e");
    const endless = await serve(async (connection) => {
      while (await connection.send(chunk)) sent += chunk.length;
    });
    await tunnelTo(endless.authority);
    let last = -1;
    let since = Date.now();
    // A tunnel whose reader has stopped is silent: it ends at the idle limit without having grown.
    await eventually(() => {
      if (sent !== last) {
        last = sent;
        since = Date.now();
      }
      return Date.now() - since > 300;
    });
    expect(sent).toBeLessThan(24 * 1024 * 1024);
  });

  test("8 MiB go through unchanged", async () => {
    const block = Buffer.alloc(0x10000, "0123456789");
    const source = await serve(async (connection) => {
      let left = 128;
      while (left > 0 && (await connection.send(block))) left -= 1;
      connection.end();
    });
    const client = await tunnelTo(source.authority);
    const all = await client.reader.toEnd();
    expect(all).toHaveLength(128 * block.length);
    expect(all.equals(Buffer.concat(Array.from({ length: 128 }, () => block)))).toBe(true);
  });

  test("a refused CONNECT leaves a connection that the client can use or that is closed", async () => {
    const client = await own(RawClient.connect(proxy.forward));
    client.write({ method: "CONNECT", target: `refused.test:${echo.port}` });
    const answer = await client.response("CONNECT");
    expect(answer.status).toBe(403);
    if (answer.header("connection") === "close") await client.untilClosed();
    else {
      client.write({ method: "CONNECT", target: echo.authority });
      expect((await client.response("CONNECT")).status).toBe(200);
    }
  });

  test("ends as one log line with its bytes and without a path", async () => {
    const client = await tunnelTo(echo.authority);
    const port = client.socket.localPort;
    expect(port).toBeGreaterThan(0);
    client.send("12345");
    await client.reader.exactly(10);
    client.end();
    await client.reader.toEnd();
    const line = await proxy.log(
      (log) => log["msg"] === "flow" && log["transport"] === "connect" && log["sent"] === 10,
    );
    expect(line).toMatchObject({ method: "CONNECT", received: 5, status: 200 });
  });
});

describe("the Host field of a CONNECT", () => {
  const ask = async (host: string): Promise<number> => {
    const client = await own(RawClient.connect(proxy.forward));
    client.send(Buffer.from(`CONNECT ${echo.authority} HTTP/1.1\r\nHost: ${host}\r\n\r\n`));
    return (await client.response("CONNECT")).status;
  };

  test("may leave the port out, as Node's fetch does", async () => {
    expect(await ask("127.0.0.1")).toBe(200);
  });

  test.each(["127.0.0.2", "127.0.0.1:1", "other.test"])("is refused as %s", async (host) => {
    expect(await ask(host)).toBe(421);
  });
});

describe("the number of tunnels", () => {
  test("RES-01: one over the limit is 503, and a closed one makes room", async () => {
    const small = await own(ProxyProcess.start(settings({ limits: { max_tunnels: 3 } })));
    const clients: RawClient[] = [];
    for (let count = 0; count < 3; count += 1) {
      const { client, answer } = await openTunnel(small.forward, echo.authority);
      clients.push(await own(client));
      expect(answer.status).toBe(200);
    }
    const over = await openTunnel(small.forward, echo.authority);
    await own(over.client);
    expect(over.answer.status).toBe(503);
    expect(over.answer.json()).toMatchObject({ error: "proxy.overloaded" });
    clients[0]?.close();
    await eventually(async () => {
      const { client, answer } = await openTunnel(small.forward, echo.authority);
      await own(client);
      return answer.status === 200;
    });
  });
});
