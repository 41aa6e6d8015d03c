/**
 * The HTTP clients of Python, Go, Java and Rust, in every way to use the proxy; `.ci/clients` installs them, and what a
 * machine lacks is skipped, and said. Each of them does the same, so that one table tells what comes of it.
 */
import { execFile } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { temporaryDirectory, TestAuthority } from "../support/certs.ts";
import { ClientOrigin, largeHash, uploadHash } from "../support/client-origin.ts";
import { owner } from "../support/owner.ts";

const own = owner();
const allowed = "api.allowed.test";
const password = "agent:secret@";

interface Client {
  readonly program: string | undefined;
  readonly args: readonly string[];
  /** What it can be told as its proxy, besides http:. */
  readonly proxies: readonly string[];
  /** Where a refused CONNECT is shown as less than the status line. */
  readonly connectRefused?: RegExp;
  readonly passwordMissing?: RegExp;
  /** It shows the status line of a refusal, and no body. */
  readonly isTerse?: boolean;
}

const { CLIENTS_PYTHON, CLIENTS_GO, CLIENTS_JAVA, CLIENTS_RUST } = process.env;
const script = fileURLToPath(new URL("../fixtures/clients/client.py", import.meta.url));
const java = CLIENTS_JAVA === undefined ? undefined : "java";
const python = { program: CLIENTS_PYTHON, proxies: ["https", "socks5h"] };
// The JDK takes no password for a CONNECT without this property.
const flags = ["-Djdk.http.auth.tunneling.disabledSchemes=", "-cp", CLIENTS_JAVA ?? "", "Clients"];

const clients: Readonly<Record<string, Client>> = {
  requests: { ...python, args: [script, "requests"] },
  httpx: { ...python, args: [script, "httpx"] },
  "httpx over HTTP/2": { ...python, args: [script, "httpx-h2"] },
  urllib: { ...python, args: [script, "urllib"], proxies: [], isTerse: true },
  aiohttp: { ...python, args: [script, "aiohttp"], proxies: ["https"] },
  "Go over HTTP/1.1": { program: CLIENTS_GO, args: ["http1"], proxies: ["https", "socks5h"] },
  Go: { program: CLIENTS_GO, args: ["default"], proxies: ["https", "socks5h"] },
  "java.net.http over HTTP/1.1": {
    program: java,
    args: [...flags, "java.net.http"],
    proxies: [],
    connectRefused: /Tunnel failed, got: 403/,
  },
  "java.net.http": {
    program: java,
    args: [...flags, "java.net.http-h2"],
    proxies: [],
    connectRefused: /Tunnel failed, got: 403/,
  },
  HttpURLConnection: { program: java, args: [...flags, "HttpURLConnection"], proxies: [] },
  OkHttp: {
    program: java,
    args: [...flags, "OkHttp"],
    proxies: [],
    connectRefused: /response code for CONNECT: 403/,
    passwordMissing: /Failed to authenticate with proxy/,
  },
  "Apache HttpClient": {
    program: java,
    args: [...flags, "Apache"],
    proxies: [],
    // It takes the response to a CONNECT for that of the request.
    connectRefused: /^403 .*evil\.test/,
  },
  reqwest: {
    program: CLIENTS_RUST,
    args: ["reqwest"],
    proxies: ["https", "socks5h"],
    connectRefused: /tunnel error/,
    passwordMissing: /proxy authorization required/,
  },
};

let origin: ClientOrigin;
/** The bridge; one with a password; that behind TLS; one that opens nothing. */
let bridge: BridgeProxy;
let shared: BridgeProxy;
let secure: BridgeProxy;
let opaque: BridgeProxy;
/** The authorities of the bridge and of the origins, and of the origins alone. */
let trust: string;
let distrust: string;

beforeAll(async () => {
  const authority = await TestAuthority.create();
  origin = await own(ClientOrigin.start(await authority.server([allowed])));
  const { http, https } = origin.ports;
  const rest = { protocol: "rest", enforcement: "enforce", access: "full" };
  const deny = { deny_rules: [{ method: "*", path: "/denied/**" }] };
  const endpoints = [{ host: allowed, ports: [http, https], ...rest, ...deny }];
  const options = {
    ports: [https],
    originCa: authority.caPem,
    otherwise: "deny" as const,
    plugins: [{ name: "egress-policy", config: { network_policies: { api: { endpoints } } } }],
  };
  const directory = await temporaryDirectory();
  const files = { cert_file: join(directory, "tls.crt"), key_file: join(directory, "tls.key") };
  const { cert, key } = await authority.server();
  await writeFile(files.cert_file, cert);
  await writeFile(files.key_file, key);
  const callers = { clients: [{ name: "agent", password: "secret" }] };
  const listener = { roles: ["forward"], forward_proxy_addr: "127.0.0.1:0" };
  const others = { session_api_addr: "127.0.0.1:0", health_addr: "127.0.0.1:0" };
  bridge = await own(BridgeProxy.start(options));
  const caDir = dirname(bridge.caFile);
  shared = await own(BridgeProxy.start({ ...options, caDir, file: { callers } }));
  const tls = { callers, listener: { ...listener, ...others, forward_proxy_tls: files } };
  secure = await own(BridgeProxy.start({ ...options, caDir, file: tls }));
  opaque = await own(
    BridgeProxy.start({
      ...options,
      caDir,
      bridge: { mode: "disabled" },
      plugins: [{ name: "egress-policy", config: { allow: [allowed] } }],
    }),
  );
  distrust = join(directory, "origins.pem");
  trust = join(directory, "trusted.pem");
  await writeFile(distrust, authority.caPem);
  await writeFile(trust, authority.caPem + bridge.ca);
});

afterAll(() => {
  // Nothing that a client does may be a fault of the proxy.
  for (const proxy of [bridge, shared, secure, opaque]) expect(proxy.faults).toEqual([]);
});

/** What came of each action. */
async function outcomes(
  client: Client,
  url: string,
  scheme: "http" | "https",
  actions: readonly string[],
  ca = trust,
): Promise<Readonly<Record<string, string>>> {
  const port = origin.ports[scheme];
  const env = {
    PATH: process.env["PATH"] ?? "",
    HOME: tmpdir(),
    BASE: `${scheme}://${allowed}:${port}`,
    REFUSED: `${scheme}://evil.test:${port}`,
    PROXY: url,
    CA: ca,
  };
  const args = [...client.args, ...actions];
  const { stdout } = await promisify(execFile)(client.program ?? "", args, { env });
  return Object.fromEntries(stdout.split("\n").map((line) => line.split("\t") as [string, string]));
}

const served = {
  hello: "200 hello",
  many: "200 hello",
  upload: `200 ${uploadHash}`,
  download: `200 ${largeHash}`,
  cancel: "200 hello",
  early: expect.stringMatching(/413/),
};
const ordinary = Object.keys(served);
const at = ({ forward }: BridgeProxy, scheme = "http", user = ""): string =>
  `${scheme}://${user}127.0.0.1:${forward.port}`;

const missing = Object.entries(clients).filter(([, { program }]) => program === undefined);
if (missing.length > 0)
  process.stderr.write(
    `SKIPPED: ${missing.map(([name]) => name).join(", ")}: .ci/clients installs them\n`,
  );

// An upload that was refused has two seconds for what is left of it, which a busy machine may miss.
const patience = { timeout: 120_000, retry: 1 };

describe.each(Object.entries(clients))("%s", patience, (_name, client) => {
  const can = (scheme: string): boolean =>
    client.program !== undefined && (scheme === "http" || client.proxies.includes(scheme));
  const denied = client.isTerse === true ? /^403 .*Forbidden: ./ : /^403 .*"policy\.forbidden"/;

  test.runIf(can("http")).each([
    ["absolute form", "http", () => at(bridge)],
    ["absolute form with a password", "http", () => at(shared, "http", password)],
    ["a bridged CONNECT", "https", () => at(bridge)],
    ["a bridged CONNECT with a password", "https", () => at(shared, "http", password)],
  ] as const)("%s", async (_way, scheme, url) => {
    const came = await outcomes(client, url(), scheme, [...ordinary, "denied", "refused", "hello"]);
    expect(came).toMatchObject(served);
    expect(came["denied"]).toMatch(denied);
    expect(came["refused"]).toMatch(denied);
    expect(came["refused"]).toContain("evil.test");
  });

  test.runIf(can("https")).each(["http", "https"] as const)("%s over TLS", async (scheme) => {
    const came = await outcomes(client, at(secure, "https", password), scheme, [
      ...ordinary,
      "denied",
    ]);
    expect(came).toMatchObject(served);
    expect(came["denied"]).toMatch(denied);
  });

  test.runIf(can("socks5h")).each(["http", "https"] as const)("%s over SOCKS", async (scheme) => {
    const came = await outcomes(client, at(bridge, "socks5h"), scheme, [...ordinary, "denied"]);
    expect(came).toMatchObject(served);
    expect(came["denied"]).toMatch(denied);
  });

  test.runIf(can("http"))("a CONNECT that nobody opens, and one that is refused", async () => {
    // What an early response of the origin does to a client is between these two.
    const { early: _early, ...expected } = served;
    const actions = [...Object.keys(expected), "refused"];
    const came = await outcomes(client, at(opaque), "https", actions);
    expect(came).toMatchObject(expected);
    expect(came["refused"]).toMatch(client.connectRefused ?? /Forbidden: evil\.test/);
  });

  test.runIf(can("http"))("without the password, and without trust", async () => {
    const stranger = await outcomes(client, at(shared), "https", ["hello"]);
    expect(stranger["hello"]).toMatch(client.passwordMissing ?? /407|Proxy Authentication/);
    const distrusting = await outcomes(client, at(bridge), "https", ["hello"], distrust);
    expect(distrusting["hello"]).toMatch(
      /CERTIFICATE_VERIFY_FAILED|unknown authority|PKIX|UnknownIssuer/,
    );
  });
});
