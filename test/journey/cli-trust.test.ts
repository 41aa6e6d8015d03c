/** ca, env, doctor and --demo as processes, and real clients that know nothing but what env told them. */
import { type ChildProcess, execFile, execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import type { ServerResponse } from "node:http";
import https from "node:https";
import net, { type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { parseEnv } from "node:util";
import { X509Certificate } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { TestAuthority } from "../support/certs.ts";
import { StubIdp } from "../support/idp.ts";
import { mainFile } from "../support/program.ts";

interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** What a client has before env: a path to programs and an empty home. */
function bareEnvironment(): Record<string, string> {
  return { PATH: process.env["PATH"] ?? "", HOME: directory, LANG: "C.UTF-8" };
}

function run(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = bareEnvironment(),
): Promise<Result> {
  return new Promise((resolve) => {
    execFile(file, args, { env, timeout: 60_000, cwd: directory }, (error, stdout, stderr) => {
      const code = error === null ? 0 : typeof error.code === "number" ? error.code : -1;
      resolve({ code, stdout, stderr });
    });
  });
}

function cli(...args: readonly string[]): Promise<Result> {
  return run(process.execPath, [mainFile, ...args]);
}

/** Why a test of a program that is not installed is skipped, visibly; undefined when it is there. */
function isMissing(file: string, ...args: string[]): boolean {
  try {
    execFileSync(file, args, { stdio: "ignore" });
    return false;
  } catch {
    return true;
  }
}

/** A proxy process; resolves with the addresses of its `serving` line. */
async function startProxy(...args: string[]): Promise<{
  readonly child: ChildProcess;
  readonly addresses: Readonly<Record<string, { readonly port: number }>>;
}> {
  const child = spawn(process.execPath, [mainFile, ...args], {
    env: bareEnvironment(),
    cwd: directory,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const lines: string[] = [];
  for await (const line of createInterface({ input: child.stderr })) {
    lines.push(line);
    if (!line.startsWith("{")) continue;
    const value = JSON.parse(line) as { msg: string; addresses: Record<string, { port: number }> };
    if (value.msg !== "serving") continue;
    child.stderr.resume();
    return { child, addresses: value.addresses };
  }
  throw new Error(`the proxy did not serve:\n${lines.join("\n")}`);
}

async function stopped(child: ChildProcess | undefined): Promise<void> {
  if (child === undefined || child.exitCode !== null) return;
  const exit = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGKILL");
  await exit;
}

let directory = "";
let file = "";
let caDir = "";
let origin: https.Server;
let originPort = 0;
let idp: StubIdp;
let proxy: Awaited<ReturnType<typeof startProxy>>;
let proxyUrl = "";
/** What env printed, as a shell script. */
let script = "";

const name = "origin.test";

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "authbridge-cli-"));
  // A path that needs quotes in every format.
  caDir = join(directory, "my ca");
  const authority = await TestAuthority.create("origin root");
  const { cert, key } = await authority.server([name]);
  await writeFile(join(directory, "origin-root.crt"), authority.caPem);
  idp = await StubIdp.start();
  origin = https.createServer({ cert, key }, (request, response) => {
    if (request.url?.startsWith("/repository.git/") === true) serveFile(request.url, response);
    else response.end(`hello from ${request.headers.host ?? ""}`);
  });
  await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
  originPort = (origin.address() as AddressInfo).port;
  file = join(directory, "proxy.yaml");
  await writeFile(file, configText());
  proxy = await startProxy("--config", file);
  proxyUrl = `http://127.0.0.1:${proxy.addresses["forward"]?.port ?? 0}`;
  const printed = await cli("env", "--config", file, "--proxy", proxyUrl);
  expect(printed).toMatchObject({ code: 0 });
  script = printed.stdout;
}, 60_000);

afterAll(async () => {
  await stopped(proxy.child);
  origin.closeAllConnections();
  origin.close();
  await idp.close();
  await rm(directory, { recursive: true, force: true });
});

interface FileParts {
  readonly bridge?: string;
  readonly outbound?: string;
  readonly forward?: string;
  readonly stats?: string;
  readonly health?: string;
}

function configText(parts: FileParts = {}): string {
  const { forward = "127.0.0.1:0", stats = "127.0.0.1:0", health = "127.0.0.1:0" } = parts;
  const bridge = `tls_bridge:
  mode: enabled
  ca_dir: ${JSON.stringify(caDir)}
  generate_ca: true
  ports: [${originPort}]
  upstream_ca_bundle: ${JSON.stringify(join(directory, "origin-root.crt"))}
`;
  return `listener:
  roles: [forward]
  forward_proxy_addr: "${forward}"
  session_api_addr: "127.0.0.1:0"
  health_addr: "${health}"
  transparent_proxy_addr: "127.0.0.1:0"
stats: { address: "${stats}" }
egress:
  allow_ips: [127.0.0.1/32]
  hosts: { ${name}: [127.0.0.1] }
pipeline:
  inbound: { default: deny }
  outbound: ${parts.outbound ?? "{ default: allow }"}
${parts.bridge ?? bridge}`;
}

async function writeConfig(fileName: string, parts: FileParts): Promise<string> {
  const path = join(directory, fileName);
  await writeFile(path, configText(parts));
  return path;
}

function serveFile(url: string, response: ServerResponse): void {
  try {
    const [path = ""] = url.split("?");
    response.end(readFileSync(join(directory, path)));
  } catch {
    response.writeHead(404).end();
  }
}

/** Runs a shell command after `eval` of what env printed, as the documentation says. */
function asClient(command: string, ...without: readonly string[]): Promise<Result> {
  const unset = without.map((variable) => `unset ${variable}\n`).join("");
  return run("sh", ["-c", `eval "$AUTHBRIDGE_ENV"\n${unset}${command}`], {
    ...bareEnvironment(),
    AUTHBRIDGE_ENV: script,
    URL: `https://${name}:${originPort}/`,
  });
}

const greeting = (): string => `hello from ${name}:${originPort}`;

describe("ca", () => {
  test("prints what openssl and clients read, and the fingerprint that openssl prints", async () => {
    const { stdout, code } = await cli("ca", "--config", file);
    expect(code).toBe(0);
    expect(stdout).toBe(await readFile(join(caDir, "ca.crt"), "utf8"));
    const certificate = new X509Certificate(stdout);
    const facts = await cli("ca", "--config", file, "--fingerprint");
    expect(facts.stdout).toContain(certificate.fingerprint256);
    expect(facts.stdout).toContain("CN=authbridge-tls-bridge-ca");
    expect(facts.stdout).toContain(certificate.validToDate.toISOString());
  });

  test("generates a missing set as the start would, with a key that nobody else reads", async () => {
    const fresh = join(directory, "fresh");
    const path = await writeConfig("fresh.yaml", {
      bridge: `tls_bridge: { mode: enabled, ca_dir: ${JSON.stringify(fresh)}, generate_ca: true }`,
    });
    const first = await cli("ca", "--config", path);
    expect(first.stdout).toContain("BEGIN CERTIFICATE");
    expect((await stat(join(fresh, "tls.key"))).mode & 0o777).toBe(0o600);
    expect((await cli("ca", "--config", path)).stdout).toBe(first.stdout);
  });

  test.each([
    ["the bridge is off", "", /bridge is off/],
    ["the CA is ephemeral", "tls_bridge: { mode: enabled, ca: ephemeral }", /ephemeral/],
    ["the set is missing", "tls_bridge: { mode: enabled, ca_dir: ./nowhere }", /generate_ca: true/],
  ])("exits with 2 and words when %s", async (_title, bridge, words) => {
    const path = await writeConfig("no-ca.yaml", { bridge });
    const { code, stdout, stderr } = await cli("ca", "--config", path);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(words);
  });
});

describe("env", () => {
  test("curl", async () => {
    const { stdout, stderr, code } = await asClient('curl -sS --fail "$URL"');
    expect({ stdout, stderr, code }).toEqual({ stdout: greeting(), stderr: "", code: 0 });
  });

  test("curl trusts by what env says and by nothing else", async () => {
    const { code } = await asClient('curl -sS "$URL"', "CURL_CA_BUNDLE", "SSL_CERT_FILE");
    // 60: the peer's certificate is not to be trusted.
    expect(code).toBe(60);
  });

  test("node's fetch", async () => {
    const fetchIt = `node -e 'fetch(process.env.URL).then((r) => r.text()).then(console.log)'`;
    const { stdout, stderr } = await asClient(fetchIt);
    expect({ stdout, stderr }).toEqual({ stdout: `${greeting()}\n`, stderr: "" });
    expect((await asClient(fetchIt, "NODE_EXTRA_CA_CERTS")).code).not.toBe(0);
  });

  test.skipIf(isMissing("python3", "--version"))("python's own client", async () => {
    const code =
      "import os, urllib.request as u; print(u.urlopen(os.environ['URL']).read().decode())";
    const { stdout, stderr } = await asClient(`python3 -c "${code}"`);
    expect({ stdout, stderr }).toEqual({ stdout: `${greeting()}\n`, stderr: "" });
    expect((await asClient(`python3 -c "${code}"`, "SSL_CERT_FILE")).code).not.toBe(0);
  });

  test.skipIf(isMissing("python3", "-c", "import requests"))("python requests", async () => {
    const code = "import os, requests; print(requests.get(os.environ['URL']).text)";
    const { stdout, stderr } = await asClient(`python3 -c "${code}"`);
    expect({ stdout, stderr }).toEqual({ stdout: `${greeting()}\n`, stderr: "" });
  });

  test.skipIf(isMissing("git", "--version"))("git", async () => {
    const repository = join(directory, "repository.git");
    await mkdir(repository);
    const commit = `git init -q --bare . && t=$(git mktree </dev/null) &&
      c=$(git -c user.name=t -c user.email=t@t.test commit-tree -m first "$t") &&
      git update-ref refs/heads/main "$c" && git update-server-info && printf %s "$c"`;
    const made = await run("sh", ["-c", `cd repository.git && ${commit}`]);
    expect(made.stdout).toMatch(/^[0-9a-f]{40}$/);
    const { stdout, stderr } = await asClient('git ls-remote "${URL}repository.git"');
    expect(stderr).toBe("");
    expect(stdout).toContain(`${made.stdout}\trefs/heads/main`);
    expect(
      (await asClient('git ls-remote "${URL}repository.git"', "GIT_SSL_CAINFO")).code,
    ).not.toBe(0);
  });

  test.skipIf(isMissing("java", "--list-modules"))("java", async () => {
    const source = join(directory, "Get.java");
    await writeFile(
      source,
      `import java.io.*; import java.net.*;
public class Get { public static void main(String[] a) throws Exception {
  try (InputStream in = new URL(System.getenv("URL")).openStream()) {
    System.out.println(new String(in.readAllBytes()));
  } } }`,
    );
    const { stdout, stderr } = await asClient("java Get.java");
    expect(stdout, stderr).toBe(`${greeting()}\n`);
  });

  test.skipIf(isMissing("keytool", "-help"))(
    "keytool reads every certificate of the Java store",
    async () => {
      const store = join(caDir, "ca-bundle.jks");
      const listed = await run("keytool", ["-list", "-keystore", store, "-storepass", "changeit"]);
      const bundle = await readFile(join(caDir, "ca-bundle.crt"), "utf8");
      const count = bundle.match(/BEGIN CERTIFICATE/g)?.length ?? 0;
      expect(listed.stdout).toContain(`contains ${count} entries`);
      expect(listed.stdout.match(/trustedCertEntry/g)).toHaveLength(count);
    },
  );

  test("the bundle holds the system's roots and the CA, each once", async () => {
    const bundle = await readFile(join(caDir, "ca-bundle.crt"), "utf8");
    const ca = await readFile(join(caDir, "ca.crt"), "utf8");
    const blocks = bundle.match(/-----BEGIN[^-]+-----[^-]+-----END[^-]+-----\n/g) ?? [];
    expect(blocks[0]).toBe(ca);
    expect(blocks.length).toBeGreaterThan(10);
    expect(new Set(blocks.map((block) => new X509Certificate(block).fingerprint256)).size).toBe(
      blocks.length,
    );
  });

  test("a CA that was replaced leaves the bundle, even when the bundle is the system's file by now", async () => {
    const old = join(directory, "rotating");
    const path = await writeConfig("rotating.yaml", {
      bridge: `tls_bridge: { mode: enabled, ca_dir: ${JSON.stringify(old)}, generate_ca: true }`,
    });
    const bundleFile = join(old, "ca-bundle.crt");
    const env = async (variables: Record<string, string>): Promise<string> => {
      const args = [mainFile, "env", "--config", path, "--proxy", proxyUrl];
      const printed = await run(process.execPath, args, { ...bareEnvironment(), ...variables });
      expect(printed).toMatchObject({ code: 0 });
      return readFile(bundleFile, "utf8");
    };
    await env({});
    const first = await readFile(join(old, "ca.crt"), "utf8");
    await Promise.all(["tls.crt", "tls.key", "ca.crt"].map((part) => rm(join(old, part))));
    const second = await env({ SSL_CERT_FILE: bundleFile });
    expect(second).not.toContain(first);
    expect(second).toContain(await readFile(join(old, "ca.crt"), "utf8"));
  });

  test("a company's roots in SSL_CERT_FILE stay trusted", async () => {
    const company = await TestAuthority.create("company root");
    const roots = join(directory, "company.crt");
    await writeFile(roots, company.caPem);
    const bundleFile = join(directory, "with-company.crt");
    const args = ["env", "--config", file, "--proxy", proxyUrl, "--bundle-file", bundleFile];
    const printed = await run(process.execPath, [mainFile, ...args], {
      ...bareEnvironment(),
      SSL_CERT_FILE: roots,
    });
    expect(printed.stdout).toContain(`export CURL_CA_BUNDLE='${bundleFile}'`);
    expect(await readFile(bundleFile, "utf8")).toContain(company.caPem);
  });

  test("every format says the same, and paths of another place are named as given", async () => {
    const at = ["env", "--config", file, "--proxy", proxyUrl, "--ca-file", "/etc/my ca/ca.crt"];
    const dotenv = parseEnv((await cli(...at, "--format", "dotenv")).stdout);
    const yaml = (await cli(...at, "--format", "kubernetes")).stdout;
    const list = parse(yaml) as { name: string; value: string }[];
    expect(Object.fromEntries(list.map(({ name, value }) => [name, value]))).toEqual(dotenv);
    expect(dotenv).toMatchObject({
      HTTPS_PROXY: proxyUrl,
      NODE_EXTRA_CA_CERTS: "/etc/my ca/ca.crt",
      SSL_CERT_FILE: "/etc/my ca/ca-bundle.crt",
    });
    const { stdout } = await asClient("env");
    const missing = Object.keys(dotenv).filter((key) => !`\n${stdout}`.includes(`\n${key}=`));
    expect(missing).toEqual([]);
  });

  test("without a bridge only the proxy is set", async () => {
    const path = await writeConfig("plain.yaml", { bridge: "" });
    const { stdout, stderr, code } = await cli("env", "--config", path, "--proxy", proxyUrl);
    expect(code).toBe(0);
    expect(stdout).toContain(`export HTTPS_PROXY='${proxyUrl}'`);
    expect(stdout).not.toContain("SSL_CERT_FILE");
    expect(stderr).toContain("bridge is off");
  });

  test.each([
    ["a port that is not fixed", {}, [], 2, /--proxy/],
    [
      "an ephemeral CA",
      { bridge: "tls_bridge: { mode: enabled, ca: ephemeral }" },
      ["--proxy", "http://127.0.0.1:1"],
      2,
      /ephemeral/,
    ],
    ["a proxy that is no URL", {}, ["--proxy", "here"], 2, /--proxy must be a URL/],
    [
      "a bundle that cannot be written",
      {},
      ["--proxy", "http://127.0.0.1:1", "--bundle-file", "/dev/null/x.crt"],
      1,
      /--bundle-file/,
    ],
  ])("refuses %s in words", async (_title, parts, args, wanted, words) => {
    const path = await writeConfig("refused.yaml", parts);
    const { code, stdout, stderr } = await cli("env", "--config", path, ...args);
    expect({ code, stdout }).toEqual({ code: wanted, stdout: "" });
    expect(stderr).toMatch(words);
  });
});

describe("doctor", () => {
  const verdicts = (text: string, name: string): string[] =>
    text.split("\n").filter((line) => line.slice(6).startsWith(name));

  test("starts the file by itself and sends a request through its bridge", async () => {
    const { code, stdout } = await cli("doctor", "--config", file);
    expect(stdout).toMatch(/everything passed\n$/);
    expect(code).toBe(0);
    expect(verdicts(stdout, "bridge")).toEqual([
      expect.stringMatching(/^pass .*through the bridge/),
    ]);
    expect(verdicts(stdout, "connect")[0]).toContain("verify against ca.crt");
  });

  test("tells what a command reached, and that it trusted the bridge", async () => {
    const url = `https://${name}:${originPort}/`;
    const { code, stdout } = await cli("doctor", "--config", file, "--", "curl", "-sS", url);
    expect(stdout).toContain(greeting());
    expect(stdout).toMatch(
      /pass {2}command +CONNECT origin\.test:\d+: opened by the bridge \(h2\)/,
    );
    expect(code).toBe(0);
  });

  test("tells that a command did not trust the bridge", async () => {
    const url = `https://${name}:${originPort}/`;
    const curl = ["curl", "-sS", "--cacert", join(directory, "origin-root.crt"), url];
    const { code, stdout } = await cli("doctor", "--config", file, "--", ...curl);
    expect(stdout).toMatch(/FAIL {2}command +CONNECT origin\.test:\d+: the command did not trust/);
    expect(stdout).toMatch(/FAIL {2}command +curl exited with 60/);
    expect(code).toBe(1);
  });

  test("ends a command that does not end", async () => {
    const args = ["doctor", "--config", file, "--timeout", "300ms", "--", "sleep", "600"];
    const { code, stdout } = await cli(...args);
    expect(stdout).toMatch(/FAIL {2}command +sleep was still running after 0\.3 s/);
    expect(code).toBe(1);
  });

  test("asks a proxy that runs already, and leaves nothing behind", async () => {
    const [forward = "", stats = "", health = ""] = await freeAddresses(3);
    const path = await writeConfig("fixed.yaml", { forward, stats, health });
    const running = await startProxy("--config", path);
    try {
      const { code, stdout } = await cli("doctor", "--config", path);
      expect(stdout).toMatch(/a proxy is running with this very file/);
      expect(verdicts(stdout, "ready")).toEqual([expect.stringMatching(/^pass .*running proxy/)]);
      expect(verdicts(stdout, "connect")[0]).toContain("verify against ca.crt");
      expect(code).toBe(0);
    } finally {
      await stopped(running.child);
    }
  });

  test("names the listener whose address another program has", async () => {
    const squatter = net.createServer();
    await new Promise<void>((resolve) => squatter.listen(0, "127.0.0.1", resolve));
    const { port } = squatter.address() as AddressInfo;
    const path = await writeConfig("taken.yaml", { forward: `127.0.0.1:${port}` });
    const { code, stdout } = await cli("doctor", "--config", path);
    squatter.close();
    expect(verdicts(stdout, "listener")[0]).toMatch(
      /^FAIL .*forward_proxy_addr .* taken by another program — .*change listener\.forward_proxy_addr/,
    );
    expect(code).toBe(1);
  });

  test("shows no secret, and what the token endpoint lacks", async () => {
    idp.tokenReplies.push({ status: 503, body: "no" });
    const plugin = `{ name: token-exchange, config: { token_url: "${idp.tokenUrl}", identity: { type: client-secret, client_id: me, client_secret: "hunter2-hunter2" } } }`;
    const path = await writeConfig("token.yaml", {
      outbound: `{ default: deny, plugins: [${plugin}] }`,
    });
    const { code, stdout, stderr } = await cli("doctor", "--config", path);
    expect(verdicts(stdout, "token")[0]).toMatch(/^FAIL .*answered 503/);
    // A service that is away is no reason not to try the rest.
    expect(verdicts(stdout, "bridge")[0]).toMatch(/^pass/);
    expect(code).toBe(1);
    expect(stdout + stderr).not.toContain("hunter2");
  });

  test.each([
    ["does not load", "listener: { roles: [sideways] }\n", /^FAIL {2}file .*listener\.roles/],
    [
      "has a CA that is missing",
      `listener: { roles: [forward], forward_proxy_addr: "127.0.0.1:0", transparent_proxy_addr: "127.0.0.1:0", session_api_addr: "127.0.0.1:0", health_addr: "127.0.0.1:0" }\nstats: { address: "127.0.0.1:0" }\ntls_bridge: { mode: enabled, ca_dir: ./nowhere }\n`,
      /FAIL {2}ca .*generate_ca: true/,
    ],
  ])("fails for a file that %s", async (_title, text, words) => {
    const path = join(directory, "bad.yaml");
    await writeFile(path, text);
    const { code, stdout } = await cli("doctor", "--config", path);
    expect(stdout).toMatch(words);
    expect(code).toBe(1);
  });

  test("exits with 2 for bad usage", async () => {
    expect(await cli("doctor")).toMatchObject({ code: 2, stdout: "" });
  });
});

describe("--demo", () => {
  test("with --config is refused in words", async () => {
    const { code, stderr } = await cli("--demo", "--config", file);
    expect(code).toBe(2);
    expect(stderr).toContain("cannot be used with --config");
  });

  test("serves its ports, opens TLS and shows the session", async (context) => {
    const ports = [47_600, 47_601, 47_602, 47_603];
    const taken = (await Promise.all(ports.map(isTaken))).includes(true);
    if (taken) context.skip("a port of the demo is taken on this machine");
    const demoDir = join(directory, "demo ca");
    const demo = await startProxy("--demo", "--ca-dir", demoDir);
    try {
      expect(
        Object.values(demo.addresses)
          .map(({ port }) => port)
          .toSorted((one, other) => one - other),
      ).toEqual(ports);
      const printed = await cli("env", "--config", join(demoDir, "demo.yaml"));
      expect(printed.stdout).toContain("export HTTPS_PROXY='http://127.0.0.1:47600'");
      script = printed.stdout;
      // No such origin: the answer is the proxy's own, inside TLS that curl has verified.
      const { stdout } = await asClient("curl -sS https://nobody.invalid/");
      expect(JSON.parse(stdout)).toMatchObject({ error: "upstream.unresolvable" });
      const sessions = await fetch("http://127.0.0.1:47601/v1/sessions/default");
      expect(await sessions.text()).toContain('"nobody.invalid');
    } finally {
      await stopped(demo.child);
    }
  });
});

/** Addresses that were free a moment ago: the file of a proxy that the doctor shall find needs fixed ones. */
async function freeAddresses(count: number): Promise<string[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = net.createServer();
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      return server;
    }),
  );
  return servers.map((server) => {
    const { port } = server.address() as AddressInfo;
    server.close();
    return `127.0.0.1:${port}`;
  });
}

function isTaken(port: number): Promise<boolean> {
  const server = net.createServer();
  return new Promise((resolve) => {
    server.once("error", () => resolve(true));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(false)));
  });
}
