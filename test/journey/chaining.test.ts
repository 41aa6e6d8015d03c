/** Every kind of agent traffic through a parent proxy: what the parent is asked, and what it never hears. */
import { beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { get, openTunnel, request } from "../support/http-client.ts";
import { StubIdp } from "../support/idp.ts";
import { HttpOrigin, type OriginConnection, reply, TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { type Settings, testThreads } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";
import { closedPort, StubParent } from "../support/stub-parent.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const own = owner();
let origin: HttpOrigin;
let parent: StubParent;

/** Both kinds of traffic through one parent. */
const through = (url: string, over: Settings = {}): Settings => ({
  upstream_proxy: { http_proxy: url, https_proxy: url, ...over },
});

const hosts = { "named.test": ["127.0.0.1"], "meta.test": ["169.254.169.254"] };

const start = (over: Settings, env: Record<string, string> = {}): Promise<ProxyProcess> =>
  own(ProxyProcess.start(merge(settings({ egress: { hosts } }), over), { env }));

async function echoBack(connection: OriginConnection): Promise<void> {
  for (let part = await connection.reader.some(); part !== undefined;) {
    await connection.send(part);
    part = await connection.reader.some();
  }
  connection.end();
}

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  parent = await own(StubParent.start());
});

describe("plain HTTP", () => {
  test("to an address goes in absolute form, with the agent's own fields and no credentials of it", async () => {
    const proxy = await start(through(parent.url.replace("://", "://user:p%40ss@")));
    parent.heads.length = 0;
    const answer = await get(proxy.forward, `${origin.url}/a%2fb?q=1`, {
      "Proxy-Authorization": "Basic YWdlbnQ6c2VjcmV0",
      "X-Mine": "1",
    });
    expect(answer.text).toBe("hello from the origin");
    const [head = ""] = parent.heads;
    expect(head).toContain(`GET ${origin.url}/a%2fb?q=1 HTTP/1.1\r\n`);
    expect(head.toLowerCase()).toContain(`\r\nhost: ${origin.authority}\r\n`);
    expect(head).toContain("X-Mine: 1");
    expect(head).not.toContain("YWdlbnQ6c2VjcmV0");
    const basic = Buffer.from("user:p@ss").toString("base64");
    expect(head.match(/proxy-authorization: .*/gi)).toEqual([
      `Proxy-Authorization: Basic ${basic}`,
    ]);
  });

  test("to a name asks for a tunnel to the vetted address, and the origin sees the name", async () => {
    const proxy = await start(through(parent.url));
    parent.heads.length = 0;
    const answer = await get(proxy.forward, `http://named.test:${origin.port}/by-name`);
    expect(answer.status).toBe(200);
    expect(parent.lines).toEqual([`CONNECT 127.0.0.1:${origin.port} HTTP/1.1`]);
    expect(origin.requestFor("/by-name").header("host")).toBe(`named.test:${origin.port}`);
  });

  test("with connect_by: name goes in absolute form by name", async () => {
    const proxy = await start(through(parent.url, { connect_by: "name" }));
    parent.heads.length = 0;
    const target = `http://only-the-parent-knows.test:${origin.port}/far`;
    expect((await get(proxy.forward, target)).status).toBe(200);
    expect(parent.lines).toEqual([`GET ${target} HTTP/1.1`]);
  });

  test("shares the connections to a parent between destinations", async () => {
    const keeping = await own(StubParent.start());
    keeping.act = () => reply(200, "kept");
    const proxy = await start(through(keeping.url, { connect_by: "name" }));
    for (const name of ["one.test", "two.test", "three.test"])
      expect((await get(proxy.forward, `http://${name}/`)).text).toBe("kept");
    expect(keeping.heads).toHaveLength(3);
    // Each thread has connections of its own.
    expect(keeping.accepted).toBeLessThanOrEqual(testThreads);
  });
});

describe("tunnels", () => {
  test("CONNECT asks the parent for the vetted address, and sends nothing of the agent's head", async () => {
    const echo = await own(TcpOrigin.start(echoBack));
    const proxy = await start(through(parent.url));
    parent.heads.length = 0;
    const { client, answer } = await openTunnel(proxy.forward, `named.test:${echo.port}`, {
      "Proxy-Authorization": "Basic YWdlbnQ=",
      "X-Mine": "1",
    });
    expect(answer.status).toBe(200);
    client.send("ping");
    expect((await client.reader.some(4_000))?.toString()).toBe("ping");
    client.close();
    const authority = `127.0.0.1:${echo.port}`;
    expect(parent.heads).toEqual([`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`]);
  });

  test("bytes that a server sends first reach the client, also those beside the parent's 200", async () => {
    const eager = await own(StubParent.start());
    eager.act = () => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n220 early\r\n";
    const proxy = await start(through(eager.url));
    const { client } = await openTunnel(proxy.forward, "named.test:25");
    expect((await client.reader.some(4_000))?.toString()).toBe("220 early\r\n");
    client.close();
  });

  test("much data goes both ways whole", async () => {
    const bytes = Buffer.alloc(3_000_000, "0123456789");
    const echo = await own(TcpOrigin.start(echoBack));
    const proxy = await start(through(parent.url));
    const { client } = await openTunnel(proxy.forward, `127.0.0.1:${echo.port}`);
    client.send(bytes);
    expect((await client.reader.exactly(bytes.length)).equals(bytes)).toBe(true);
    client.close();
  });

  test("the bridge opens TLS through the parent, and verifies the origin by name", async () => {
    const authority = await TestAuthority.create();
    const secure = await own(TlsOrigin.start(await authority.server(["api.allowed.test"]), "both"));
    const bridged = await own(
      BridgeProxy.start({
        ports: [secure.port],
        originCa: authority.caPem,
        file: through(parent.url),
      }),
    );
    parent.heads.length = 0;
    const answer = await bridged.get(secure.at("api.allowed.test"), "/");
    expect(answer.text).toBe("OK-SECRET");
    expect(parent.lines).toEqual([`CONNECT 127.0.0.1:${secure.port} HTTP/1.1`]);
  });
});

describe("an https parent", () => {
  test("is verified with trusted_ca, and the tunnel inside it is whole", async () => {
    const authority = await TestAuthority.create();
    const secured = await own(StubParent.start(await authority.server(["127.0.0.1"])));
    const proxy = await own(
      ProxyProcess.start(
        merge(settings({ egress: { hosts } }), through(secured.url, { trusted_ca: "ca.pem" })),
        { files: { "ca.pem": authority.caPem } },
      ),
    );
    expect((await get(proxy.forward, `${origin.url}/tls-parent`)).status).toBe(200);
    const echo = await own(TcpOrigin.start(echoBack));
    const { client, answer } = await openTunnel(proxy.forward, `named.test:${echo.port}`);
    expect(answer.status).toBe(200);
    client.send("x".repeat(100_000));
    expect((await client.reader.exactly(100_000)).length).toBe(100_000);
    client.close();
  });

  test("that nobody vouches for is refused, with the hop and the key in the answer", async () => {
    const authority = await TestAuthority.create();
    const secured = await own(StubParent.start(await authority.server(["127.0.0.1"])));
    const proxy = await start(through(secured.url));
    const answer = await get(proxy.forward, `${origin.url}/unverified`);
    expect(answer.status).toBe(502);
    expect(answer.text).toMatch(/upstream proxy https:\/\/127.*upstream_proxy\.trusted_ca/);
    expect(secured.heads).toEqual([]);
  });
});

describe("a parent that is down", () => {
  test("is a 502 that names it, and nothing is dialled in its place", async () => {
    const port = await closedPort();
    const proxy = await start(through(`http://127.0.0.1:${port}`));
    const before = origin.connections.length;
    for (const target of [`${origin.url}/down`, `http://named.test:${origin.port}/down`]) {
      const answer = await get(proxy.forward, target);
      expect(answer.status).toBe(502);
      expect(answer.text).toContain(`http://127.0.0.1:${port}`);
      expect(answer.text).toContain("ECONNREFUSED");
    }
    const { answer, client } = await openTunnel(proxy.forward, origin.authority);
    client.close();
    expect(answer.status).toBe(502);
    expect(origin.connections.length).toBe(before);
    expect(await proxy.metric("authbridge_upstream_proxy_failures_total", { hop: "tcp" })).toBe(3);
  });
});

describe("the way of a destination", () => {
  test("no_proxy, routes and the scheme decide it", async () => {
    const special = await own(StubParent.start());
    special.act = () => reply(200, "special");
    const names = ["direct.test", "x.below.test", "straight.test"];
    const proxy = await start({
      egress: { hosts: Object.fromEntries(names.map((name) => [name, ["127.0.0.1"]])) },
      ...through(parent.url, {
        no_proxy: "direct.test,  .below.test 10.0.0.0/8",
        routes: [
          { host: "special.test", proxy: { url: special.url, connect_by: "name" } },
          { host: "straight.test", direct: true },
        ],
      }),
    });
    parent.heads.length = 0;
    for (const name of names)
      expect((await get(proxy.forward, `http://${name}:${origin.port}/`)).status).toBe(200);
    expect(parent.heads).toEqual([]);
    expect((await get(proxy.forward, "http://special.test/")).text).toBe("special");
    await get(proxy.forward, `http://named.test:${origin.port}/`);
    expect(parent.heads).toHaveLength(1);
  });

  test("a CIDR block of no_proxy counts for the address of a name", async () => {
    const proxy = await start(through(parent.url, { no_proxy: ["127.0.0.0/8"] }));
    parent.heads.length = 0;
    expect((await get(proxy.forward, `http://named.test:${origin.port}/`)).status).toBe(200);
    expect(parent.heads).toEqual([]);
  });

  test("variables of the environment change nothing unless the file asks for them", async () => {
    const env = { HTTP_PROXY: parent.url, HTTPS_PROXY: parent.url, ALL_PROXY: parent.url };
    parent.heads.length = 0;
    const deaf = await start({}, env);
    await get(deaf.forward, `${origin.url}/`);
    const blocked = await start({ upstream_proxy: {} }, env);
    await get(blocked.forward, `${origin.url}/`);
    expect(parent.heads).toEqual([]);
    const listening = await start({ upstream_proxy: { from_environment: true } }, env);
    await get(listening.forward, `${origin.url}/env`);
    expect(parent.lines).toEqual([`GET ${origin.url}/env HTTP/1.1`]);
  });

  test("the agent next door is dialled directly, whatever the environment says and the file takes from it", async () => {
    const env = { HTTP_PROXY: parent.url, HTTPS_PROXY: parent.url, ALL_PROXY: parent.url };
    parent.heads.length = 0;
    const listener = { roles: ["reverse", "forward"], reverse_proxy_backend: origin.url };
    for (const over of [{}, { upstream_proxy: { from_environment: true } }]) {
      const proxy = await start({ listener, ...over }, env);
      expect((await get(proxy.reverse, "/inbound")).status).toBe(200);
    }
    expect(parent.heads).toEqual([]);
  });

  test("no agent speaks to the parent itself", async () => {
    const proxy = await start(through(parent.url));
    const { answer, client } = await openTunnel(proxy.forward, `127.0.0.1:${parent.port}`);
    client.close();
    expect(answer.status).toBe(403);
    const plain = await request(proxy.forward, { target: `${parent.url}/` });
    expect(plain.status).toBe(403);
    expect(plain.text).toContain("upstream proxy of this proxy");
  });

  test("nor by its address, when the file has its name and nobody was there yet", async () => {
    const hosts = { "corp.test": ["127.0.0.1"] };
    const chained = through(`http://corp.test:${parent.port}`, { no_proxy: "127.0.0.0/8" });
    const proxy = await start({ egress: { hosts }, ...chained });
    const before = parent.lines.length;
    const { answer, client } = await openTunnel(proxy.forward, `127.0.0.1:${parent.port}`);
    client.close();
    expect(answer.status).toBe(403);
    expect(answer.text).toContain("upstream proxy of this proxy");
    expect(parent.lines.length).toBe(before);
  });
});

test("CRED: no secret of the chain is in the log, in /config or in an answer", async () => {
  const refusing = await own(StubParent.start());
  refusing.act = () => "HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n";
  const secrets = ["s3cr3t-inline", "s3cr3t-file", "s3cr3t-env"];
  const proxy = await own(
    ProxyProcess.start(
      merge(settings(), {
        upstream_proxy: {
          http_proxy: refusing.url.replace("://", `://u:${secrets[0]}@`),
          https_proxy: { url: refusing.url, username: "u", password_file: "password" },
          routes: [
            {
              host: "r.test",
              proxy: { url: refusing.url, username: "u", password_env: "PROXY_PW" },
            },
          ],
        },
      }),
      { files: { password: `${secrets[1]}\n` }, env: { PROXY_PW: secrets[2] ?? "" } },
    ),
  );
  const plain = await get(proxy.forward, `${origin.url}/`);
  const { answer, client } = await openTunnel(proxy.forward, origin.authority);
  client.close();
  expect([plain.status, answer.status]).toEqual([502, 502]);
  const sent = refusing.heads.map((head) => /Basic (\S+)/.exec(head)?.[1] ?? "");
  expect(sent.map((value) => Buffer.from(value, "base64").toString())).toEqual([
    "u:s3cr3t-inline",
    "u:s3cr3t-file",
  ]);
  const shown = [plain.text, answer.text, (await proxy.stats("/config")).text, proxy.stderr].join();
  for (const secret of [...secrets, ...sent]) expect(shown).not.toContain(secret);
  expect(shown).toContain("407");
});

test("token endpoints are reached through the parent, too: in absolute form where that is what it takes", async () => {
  const idp = await own(StubIdp.start());
  const site = await own(StubParent.start());
  const exchange = {
    name: "token-exchange",
    config: {
      token_url: idp.tokenUrl,
      identity: { type: "client-secret", client_id: "a", client_secret: "b" },
      routes: { rules: [{ host: "named.test", target_audience: "t" }] },
    },
  };
  const proxy = await start({
    ...through(site.url.replace("://", "://user:word@"), {
      routes: [{ host: "named.test", direct: true }],
    }),
    pipeline: { outbound: { plugins: [exchange] } },
  });
  const answer = await get(proxy.forward, `http://named.test:${origin.port}/exchanged`, {
    Authorization: "Bearer subject",
  });
  expect(answer.status).toBe(200);
  expect(origin.requestFor("/exchanged").header("authorization")).toBe("Bearer exchanged-t");
  expect(site.lines).toEqual([`POST ${idp.tokenUrl} HTTP/1.1`]);
  expect(site.heads[0]).toMatch(/\r\nproxy-authorization: Basic dXNlcjp3b3Jk\r\n/i);
  expect(idp.tokenCalls).toHaveLength(1);
  site.act = () => reply(407, "who?");
  const refused = await get(proxy.forward, `http://named.test:${origin.port}/refused`, {
    Authorization: "Bearer another",
  });
  expect(refused.status).toBe(503);
  expect(refused.header("proxy-authenticate")).toBeUndefined();
});
