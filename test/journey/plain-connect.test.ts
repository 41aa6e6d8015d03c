/** Plain HTTP inside a CONNECT, as Node's fetch and other clients send it for `http:` URLs. */
import { spawn } from "node:child_process";
import { beforeAll, describe, expect, test } from "vitest";
import { fetch, ProxyAgent } from "undici";
import { openTunnel, type RawClient } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin, reply, TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let origin: HttpOrigin;
let idp: StubIdp;
let proxy: ProxyProcess;
/** Its bridge opens the origin's port, and nothing is allowed but GET below /open. */
let strict: ProxyProcess;
/** The same rule, and no bridge. */
let unbridged: ProxyProcess;

const names = {
  "tool.test": ["127.0.0.1"],
  "skipped.test": ["127.0.0.1"],
  "gone.test": ["127.9.9.9"],
};

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  idp = await own(StubIdp.start());
  proxy = await own(
    ProxyProcess.start(
      settings({
        listener: { skip_hosts: ["skipped.test"] },
        egress: { hosts: names },
        ...outbound(
          { name: "denier", config: { path: "/denied" } },
          {
            name: "token-exchange",
            config: {
              token_url: idp.tokenUrl,
              default_policy: "exchange",
              audience_from_host: true,
              identity: { type: "client-secret", client_id: "a", client_secret: "b" },
            },
          },
        ),
      }),
    ),
  );
  const allow = [{ host: "tool.test", port: origin.port, methods: ["GET"], paths: ["/open/**"] }];
  const policy = {
    egress: { hosts: names },
    pipeline: {
      outbound: { default: "deny", plugins: [{ name: "egress-policy", config: { allow } }] },
    },
  };
  const bridge = { mode: "enabled", ca_dir: "ca", generate_ca: true, ports: [origin.port] };
  strict = await own(ProxyProcess.start(settings({ ...policy, tls_bridge: bridge })));
  unbridged = await own(ProxyProcess.start(settings(policy)));
});

async function fetching(through: ProxyProcess): Promise<(url: string) => ReturnType<typeof fetch>> {
  const { host, port } = through.forward;
  const dispatcher = new ProxyAgent({ uri: `http://${host}:${port}`, proxyTunnel: true });
  await own({ close: () => dispatcher.close() });
  return (url) => fetch(url, { dispatcher, headers: { Authorization: "Bearer of-the-user" } });
}

async function tunnel(through: ProxyProcess, authority: string): Promise<RawClient> {
  const { client, answer } = await openTunnel(through.forward, authority);
  await own(client);
  expect(answer.status, answer.text).toBe(200);
  return client;
}

describe("plain HTTP inside a tunnel", () => {
  test("of fetch has its token exchanged, request after request", async () => {
    const ask = await fetching(proxy);
    for (const path of ["/first", "/second"]) {
      const response = await ask(`http://tool.test:${origin.port}${path}`);
      expect(await response.text()).toBe("hello from the origin");
      const token = origin.requestFor(path).header("authorization");
      expect(token).toMatch(/^Bearer /);
      expect(token).not.toBe("Bearer of-the-user");
    }
  });

  test("is judged by path, and the refusal is a response", async () => {
    const response = await (await fetching(proxy))(`http://tool.test:${origin.port}/denied`);
    expect(response.status).toBe(403);
    expect(await response.json()).toMatchObject({ plugin: "denier" });
    expect(origin.requestsFor("/denied")).toEqual([]);
  });

  test.each([
    ["on a port that the bridge opens", () => strict],
    ["where a rule is about requests and nothing opens the port", () => unbridged],
  ])("is served and judged %s", async (_where, through) => {
    const ask = await fetching(through());
    const open = await ask(`http://tool.test:${origin.port}/open/x`);
    expect(open.status, await open.clone().text()).toBe(200);
    const closed = await ask(`http://tool.test:${origin.port}/closed`);
    expect(closed.status).toBe(403);
    expect(await closed.json()).toMatchObject({ error: "policy.forbidden" });
  });

  test.each([
    ["on a port that the bridge opens", () => `other.test:${origin.port}`],
    ["on port 80", () => "other.test"],
  ])("hears why its tunnel was refused, %s", async (_where, authority) => {
    const response = await (await fetching(strict))(`http://${authority()}/`);
    expect(response.status).toBe(403);
    expect(await response.json()).toMatchObject({ error: "policy.forbidden" });
  });

  test("is misdirected where its Host is another", async () => {
    const client = await tunnel(proxy, `tool.test:${origin.port}`);
    client.write({ target: "/misdirected", headers: [["Host", "elsewhere.test"]] });
    expect((await client.response()).status).toBe(421);
    expect(origin.requestsFor("/misdirected")).toEqual([]);
  });

  test("of a client that does not wait is answered in order", async () => {
    origin.on("/late", async ({ connection }) => {
      await connection.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate");
    });
    const client = await tunnel(proxy, `tool.test:${origin.port}`);
    const fields = `Host: tool.test:${origin.port}\r\nAuthorization: Bearer of-the-user\r\n\r\n`;
    client.send(`GET /late HTTP/1.1\r\n${fields}GET /denied HTTP/1.1\r\n${fields}`);
    expect((await client.response()).text).toBe("late");
    expect((await client.response()).status).toBe(403);
  });

  test("may change its protocol", async () => {
    origin.on("/socket", async ({ connection }) => {
      await connection.send(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nready",
      );
      await connection.send(await connection.reader.exactly(4));
    });
    const client = await tunnel(proxy, `tool.test:${origin.port}`);
    client.send(
      `GET /socket HTTP/1.1\r\nHost: tool.test:${origin.port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        "Authorization: Bearer of-the-user\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    expect(await client.reader.until("\r\n\r\n").then(String)).toContain("101");
    expect((await client.reader.exactly(5)).toString()).toBe("ready");
    client.send("ping");
    expect((await client.reader.exactly(4)).toString()).toBe("ping");
  });

  test("is found in segments of any size", async () => {
    const client = await tunnel(proxy, `tool.test:${origin.port}`);
    for (const part of ["G", "ET /seg", "ments HT", "TP/1.1\r", "\nHost: tool.test:"])
      client.send(part);
    client.send(`${origin.port}\r\nAuthorization: Bearer of-the-user\r\n\r\n`);
    expect((await client.response()).status).toBe(200);
    expect(origin.requestFor("/segments").header("authorization")).not.toBe("Bearer of-the-user");
  });

  test("goes as it is to a host that skips the chain", async () => {
    const ask = await fetching(proxy);
    expect((await ask(`http://skipped.test:${origin.port}/skipped`)).status).toBe(200);
    expect(origin.requestFor("/skipped").header("authorization")).toBe("Bearer of-the-user");
  });

  test("of curl is served too", async () => {
    const { host, port } = proxy.forward;
    const args = ["-sS", "--proxytunnel", "-x", `http://${host}:${port}`];
    const curl = spawn("curl", [...args, `http://tool.test:${origin.port}/denied`]);
    let text = "";
    curl.stdout.on("data", (chunk) => (text += String(chunk)));
    const started = await new Promise<boolean>((resolve) => {
      curl.once("error", () => resolve(false));
      curl.once("close", () => resolve(true));
    });
    if (started) expect(JSON.parse(text)).toMatchObject({ plugin: "denier" });
  });
});

describe("another protocol inside a tunnel", () => {
  test("whose server speaks first is copied as it is", async () => {
    const mail = await own(
      TcpOrigin.start(async (connection) => {
        await connection.send("220 ready\r\n");
        await connection.send(`250 ${await connection.reader.until("\r\n")}`);
      }),
    );
    const client = await tunnel(proxy, mail.authority);
    expect(await client.reader.until("\r\n")).toBe("220 ready\r\n");
    client.send("GET / HTTP/1.1\r\n");
    expect(await client.reader.until("\r\n")).toBe("250 GET / HTTP/1.1\r\n");
  });

  test("is refused where a rule is about requests", async () => {
    const { length } = origin.heads;
    const client = await tunnel(unbridged, `tool.test:${origin.port}`);
    client.send("HELO there\r\n");
    expect(await client.reader.toEnd()).toHaveLength(0);
    expect(origin.heads).toHaveLength(length);
  });

  test("that begins as a request could, and ends, loses no byte", async () => {
    const sink = await own(
      TcpOrigin.start(async (connection) => {
        connection.end(`got ${String(await connection.reader.toEnd())}`);
      }),
    );
    const client = await tunnel(proxy, sink.authority);
    client.send("GE");
    client.end();
    expect((await client.reader.toEnd()).toString()).toBe("got GE");
  });
});

describe("a request that does not begin as one", () => {
  const request = "GET /unjudged HTTP/1.1\r\nHost: other.test\r\n\r\n";

  test.each([
    ["behind an empty line", ["\r\n", request]],
    ["behind many", ["\r\n".repeat(40), request]],
    ["of a method in lower case", ["ge", request.slice(2)]],
    ["of a method that nobody knows", ["UNKNO", `WN${request.slice(3)}`]],
    ["of HTTP/0.9", ["\r\n", "GET /unjudged\r\n"]],
  ])("%s reaches no origin unjudged", async (_how, [first = "", rest = ""]) => {
    const begun = Promise.withResolvers<string>();
    const seen = Promise.withResolvers<string>();
    const sink = await own(
      TcpOrigin.start(async (connection) => {
        const beginning = await connection.reader.exactly(first.length);
        begun.resolve(String(beginning));
        seen.resolve(String(await connection.reader.toEnd().catch(() => "")));
      }),
    );
    const client = await tunnel(proxy, sink.authority);
    client.send(first);
    // What may still become another protocol goes on at once.
    expect(await begun.promise).toBe(first);
    client.send(rest);
    await client.untilClosed();
    expect(await seen.promise).not.toContain("unjudged");
  });

  test("in one segment behind empty lines is served", async () => {
    const client = await tunnel(proxy, `tool.test:${origin.port}`);
    const host = `Host: tool.test:${origin.port}\r\nAuthorization: Bearer of-the-user`;
    client.send(`${"\r\n".repeat(40)}GET /denied HTTP/1.1\r\n${host}\r\n\r\n`);
    expect((await client.response()).status).toBe(403);
  });
});

test("an origin that is not there puts no response into a tunnel that is open", async () => {
  const client = await tunnel(proxy, "gone.test:80");
  client.send("\0 no request");
  expect(await client.reader.toEnd().catch(() => Buffer.alloc(0))).toHaveLength(0);
});

test("an origin's own refusal stays a response", async () => {
  origin.on("/teapot", () => reply(418, "short and stout"));
  expect((await (await fetching(proxy))(`http://tool.test:${origin.port}/teapot`)).status).toBe(
    418,
  );
});
