/** A forward proxy that several agents share: each says who it is, and policy tells them apart. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect } from "node:tls";
import { beforeAll, describe, expect, test } from "vitest";
import { TestAuthority } from "../support/certs.ts";
import { clientCertificate, type ClientCertificate } from "../support/client-certificate.ts";
import { eventually } from "../support/eventually.ts";
import { exchangeBytes, openTunnel, RawClient, type RawResponse } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runWith } from "../support/program.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const spiffeId = "spiffe://example.org/ns/agents/sa/cert-agent";
let origin: HttpOrigin;
let directory: string;
let proxy: ProxyProcess;

const basic = (name: string, password: string): string =>
  `Basic ${Buffer.from(`${name}:${password}`).toString("base64")}`;

const policy = (): object => ({
  name: "egress-policy",
  config: {
    enforcement_default: "enforce",
    network_policies: {
      one: {
        endpoints: [{ host: "one.test", port: origin.port }],
        callers: ["agent-one", "cert-agent"],
      },
      everybody: { endpoints: [{ host: "all.test", port: origin.port }] },
    },
    allow: [{ host: "listed.test", callers: ["agent-two"] }],
  },
});

const shared = (over: object = {}) =>
  settings({
    egress: {
      hosts: Object.fromEntries(
        ["one.test", "all.test", "listed.test"].map((name) => [name, ["127.0.0.1"]]),
      ),
    },
    callers: { directory, clients: [{ name: "agent-two", password: "second" }] },
    ...outbound(policy()),
    ...over,
  });

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  directory = join(await mkdtemp(join(tmpdir(), "authbridge-callers-")), "callers");
  await mkdir(directory);
  await writeFile(join(directory, "agent-one"), "first\n");
  await writeFile(join(directory, "..data"), "hidden");
  proxy = await own(ProxyProcess.start(shared()));
});

async function ask(host: string, credentials?: string): Promise<RawResponse> {
  const client = await own(RawClient.connect(proxy.forward));
  const { port } = origin;
  return client.ask({
    target: `http://${host}:${port}/`,
    headers: {
      Host: `${host}:${port}`,
      ...(credentials === undefined ? {} : { "Proxy-Authorization": credentials }),
    },
  });
}

describe("credentials of a caller", () => {
  test("let it in, and never reach the origin", async () => {
    const before = origin.heads.length;
    const answer = await ask("all.test", basic("agent-one", "first"));
    expect(answer.status, answer.text).toBe(200);
    expect(JSON.stringify(origin.heads.slice(before))).not.toMatch(/proxy-authorization/i);
    const line = await proxy.log((log) => log["caller"] === "agent-one");
    expect(line["outcome"]).toBe("ok");
  });

  test.each([
    ["none", undefined],
    ["a wrong password", basic("agent-one", "second")],
    ["another caller's password", basic("agent-two", "first")],
    ["an unknown name", basic("agent-three", "first")],
    ["a name that walks the file system", basic("../callers/agent-one", "first")],
    ["the hidden files of a mounted Secret", basic("..data", "hidden")],
    ["an empty password", basic("agent-one", "")],
    ["no colon", `Basic ${Buffer.from("agent-one").toString("base64")}`],
    ["another scheme", "Bearer first"],
    ["no Base64", "Basic agent-one:first"],
    ["a name longer than any file's", basic("a".repeat(400), "first")],
  ])("%s: 407 with a challenge, nothing dialled", async (_what, credentials) => {
    const before = origin.heads.length;
    const answer = await ask("all.test", credentials);
    expect(answer.status).toBe(407);
    expect(answer.header("proxy-authenticate")).toBe('Basic realm="authbridge", charset="UTF-8"');
    expect(answer.json()).toMatchObject({ error: "auth.caller-unknown" });
    expect(origin.heads.length).toBe(before);
  });

  test("are asked of tunnels too", async () => {
    const authority = `all.test:${origin.port}`;
    const refused = await openTunnel(proxy.forward, authority);
    await own(refused.client);
    expect(refused.answer.status).toBe(407);
    const headers = { "Proxy-Authorization": basic("agent-two", "second") };
    const opened = await openTunnel(proxy.forward, authority, headers);
    await own(opened.client);
    expect(opened.answer.status).toBe(200);
  });

  test("count as refused callers, and the log has no password", async () => {
    const before = await proxy.metric("authbridge_refused_total", { reason: "caller" });
    await ask("all.test", basic("agent-one", "sesame-open"));
    const after = await proxy.metric("authbridge_refused_total", { reason: "caller" });
    expect(after).toBe(before + 1);
    expect(proxy.stderr).not.toMatch(/sesame|c2VzYW1l/);
    expect((await proxy.stats("/config")).text).not.toMatch(/"second"/);
  });

  test("change with their file", async () => {
    await writeFile(join(directory, "agent-late"), "early");
    await eventually(
      async () => (await ask("all.test", basic("agent-late", "early"))).status === 200,
    );
    await writeFile(join(directory, "agent-late"), "rotated");
    await eventually(
      async () => (await ask("all.test", basic("agent-late", "rotated"))).status === 200,
    );
    // Each thread reads the file for itself.
    const isRefused = async (password: string): Promise<boolean> =>
      (await ask("all.test", basic("agent-late", password))).status === 407;
    await eventually(() => isRefused("early"));
    await rm(join(directory, "agent-late"));
    await eventually(() => isRefused("rotated"));
  });
});

describe("policy by caller", () => {
  const one = basic("agent-one", "first");
  const two = basic("agent-two", "second");

  test.each([
    ["one.test", one, 200],
    ["one.test", two, 403],
    ["all.test", two, 200],
    ["listed.test", two, 200],
    ["listed.test", one, 403],
  ])("%s with %s: %i", async (host, credentials, status) => {
    const answer = await ask(host, credentials);
    expect(answer.status, answer.text).toBe(status);
    if (status === 403 && host === "one.test") expect(answer.text).toContain("agent 'agent-two'");
  });
});

describe("TLS to the forward proxy", () => {
  let authority: TestAuthority;
  let client: ClientCertificate;
  let secure: ProxyProcess;

  beforeAll(async () => {
    authority = await TestAuthority.create();
    client = clientCertificate(spiffeId);
    const server = await authority.server();
    const tls = { cert_file: "tls.crt", key_file: "tls.key", client_ca_file: "clients.crt" };
    const where = await mkdtemp(join(tmpdir(), "authbridge-callers-tls-"));
    await writeFile(join(where, "tls.crt"), server.cert);
    await writeFile(join(where, "tls.key"), server.key);
    await writeFile(join(where, "clients.crt"), client.ca);
    const files = Object.fromEntries(
      Object.entries(tls).map(([key, name]) => [key, join(where, name)]),
    );
    secure = await own(
      ProxyProcess.start(
        shared({
          listener: {
            forward_proxy_addr: "127.0.0.1:0",
            session_api_addr: "127.0.0.1:0",
            health_addr: "127.0.0.1:0",
            forward_proxy_tls: files,
            roles: ["forward"],
          },
          callers: {
            directory,
            clients: [{ name: "cert-agent", certificate: spiffeId }],
          },
        }),
      ),
    );
  });

  /** The status line of one plain request over TLS. */
  function askSecurely(
    certificate: Partial<Pick<ClientCertificate, "cert" | "key">>,
    credentials?: string,
  ): Promise<string> {
    const { port } = origin;
    return new Promise((resolve, reject) => {
      const { host, port: proxyPort } = secure.forward;
      const socket = connect({
        host,
        port: proxyPort,
        servername: "localhost",
        ca: authority.caPem,
        ...certificate,
      });
      socket.once("error", reject);
      socket.once("data", (bytes) => {
        resolve(bytes.toString("latin1").split("\r\n")[0] ?? "");
        socket.destroy();
      });
      const proof = credentials === undefined ? "" : `Proxy-Authorization: ${credentials}\r\n`;
      socket.write(
        `GET http://one.test:${port}/ HTTP/1.1\r\nHost: one.test:${port}\r\n${proof}\r\n`,
      );
    });
  }

  test("a client certificate names the caller", async () => {
    expect(await askSecurely({ cert: client.cert, key: client.key })).toContain(" 200 ");
  });

  test("a password does too", async () => {
    expect(await askSecurely({}, basic("agent-one", "first"))).toContain(" 200 ");
  });

  test("without either the answer is 407", async () => {
    expect(await askSecurely({})).toContain(" 407 ");
  });

  test("a certificate of a stranger's authority, and one that names nobody, are no proof", async () => {
    const stranger = clientCertificate(spiffeId);
    expect(await askSecurely({ cert: stranger.cert, key: stranger.key })).toContain(" 407 ");
  });

  test("O2: /stats counts handshakes by what the client proved", async () => {
    await askSecurely({ cert: client.cert, key: client.key });
    await exchangeBytes(secure.forward, "GET / HTTP/1.1\r\n\r\n");
    const { mtls } = (await secure.stats("/stats")).json() as { mtls: Record<string, number> };
    expect(mtls["verified"]).toBeGreaterThan(0);
    expect(mtls["failed"]).toBeGreaterThan(0);
  });

  test("plain bytes are not served", async () => {
    const request = "GET http://one.test/ HTTP/1.1\r\nHost: one.test\r\n\r\n";
    expect(await exchangeBytes(secure.forward, request)).not.toContain("HTTP/1.");
    expect(await askSecurely({}, basic("agent-one", "first"))).toContain(" 200 ");
  });
});

describe("a file that cannot work is refused with its key", () => {
  test.each([
    ["callers.directory", { callers: { directory: "/nowhere/at/all" } }],
    [
      "callers.clients[0].certificate",
      { callers: { clients: [{ name: "a", certificate: "spiffe://x/y" }] } },
    ],
    ["callers", { callers: {} }],
    ["callers.clients[0]", { callers: { clients: [{ name: "a" }] } }],
    [
      "callers.clients[0].password_file",
      { callers: { clients: [{ name: "a", password_file: "/nowhere/at/all" }] } },
    ],
  ])("%s", async (key, over) => {
    const { code, stderr, stdout } = await runWith("check", settings(over));
    expect(code).toBe(2);
    expect(stderr + stdout).toContain(key);
  });

  test("a transparent listener beside it", async () => {
    const { code, stderr, stdout } = await runWith(
      "check",
      shared({
        listener: {
          roles: ["forward"],
          forward_proxy_addr: "127.0.0.1:0",
          transparent_proxy_addr: "127.0.0.1:0",
        },
      }),
    );
    expect(code).toBe(2);
    expect(stderr + stdout).toContain("transparent_proxy_addr");
  });
});
