/** The clients that agents use, through the bridge, trusting only `ca.crt`. */
import { execFile, spawn, spawnSync } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { type IncomingMessage, request as requestHttp } from "node:http";
import { request as requestHttps } from "node:https";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect as connectTls } from "node:tls";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { fetch, ProxyAgent } from "undici";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { type Handler, readAll, TlsOrigin } from "../support/tls-origin.ts";

const run = promisify(execFile);
const works = (tool: string, ...args: string[]): boolean => spawnSync(tool, args).status === 0;
const has = (tool: string): boolean => spawnSync(tool, ["-H"]).error === undefined;
const chromium = "/usr/bin/chromium";

const allowed = "api.allowed.test";

let origin: TlsOrigin;
let proxy: BridgeProxy;
let at: string;
let work: string;

beforeAll(async () => {
  const authority = await TestAuthority.create();
  origin = await TlsOrigin.start(await authority.server([allowed]), "both");
  at = origin.at(allowed);
  work = await mkdtemp(join(tmpdir(), "authbridge-clients-"));
  proxy = await BridgeProxy.start({
    ports: [origin.port],
    originCa: authority.caPem,
    plugins: [
      { name: "bridge-witness", config: { file: "seen.jsonl" } },
      { name: "deny-paths", config: { prefix: "/denied" } },
    ],
  });
  origin.on("/echo", async (request, response, seen) => {
    response.end(await readAll(request, seen));
  });
});
afterAll(async () => {
  await proxy.close();
  await origin.close();
  await rm(work, { recursive: true, force: true });
});

/** An environment in which nothing of the machine's own proxy and trust settings is left. */
function environment(more: Readonly<Record<string, string>> = {}): Record<string, string> {
  return { PATH: process.env["PATH"] ?? "", HOME: work, LC_ALL: "C", ...more };
}

/** The chain saw the path, over https. */
async function wasSeen(path: string): Promise<boolean> {
  const notes = await proxy.records("seen.jsonl");
  return notes.some((note) => note["path"] === path && note["scheme"] === "https");
}

describe.skipIf(!works("curl", "--version"))("curl", () => {
  const curl = (...args: string[]): Promise<{ stdout: string }> =>
    run("curl", ["-sS", "--max-time", "15", "--cacert", proxy.caFile, ...args], {
      env: environment({ HTTPS_PROXY: proxy.url }),
      maxBuffer: 64 * 1024 * 1024,
    });

  test.each([
    ["--http1.1", "1.1"],
    ["--http2", "2"],
  ])("%s", async (option, version) => {
    const format = "\n%{http_code} %{http_version} %{ssl_verify_result}";
    const { stdout } = await curl(option, "-w", format, `https://${at}/curl${version}`);
    expect(stdout).toBe(`OK-SECRET\n200 ${version} 0`);
    expect(await wasSeen(`/curl${version}`)).toBe(true);
  });

  test.each(["--http1.1", "--http2"])("%s uploads a file and gets it back", async (option) => {
    const file = join(work, "upload");
    await writeFile(file, Buffer.alloc(3 * 1024 * 1024, "upload"));
    const { stdout } = await curl(option, "--data-binary", `@${file}`, `https://${at}/echo`);
    expect(stdout === (await readFile(file, "utf8"))).toBe(true);
  });

  test.each(["--http1.1", "--http2"])("%s shows a refusal and its reason", async (option) => {
    const { stdout } = await curl(option, "-w", "\n%{http_code}", `https://${at}/denied/x`);
    expect(stdout).toContain('"error":"policy.forbidden"');
    expect(stdout).toMatch(/\n403$/);
  });

  test("two names on one h2 connection stay apart", async () => {
    const urls = [`https://${at}/one`, `https://${at}/two`];
    const { stdout } = await curl("--http2", "-w", "%{num_connects} ", ...urls);
    expect(stdout).toBe("OK-SECRET1 OK-SECRET0 ");
  });

  test("without the CA fails with its own error, and never gets through", async () => {
    const seen = origin.seen.length;
    const failed = run("curl", ["-sS", "--max-time", "15", `https://${at}/untrusted`], {
      env: environment({ HTTPS_PROXY: proxy.url }),
    });
    await expect(failed).rejects.toMatchObject({ code: 60 });
    expect(origin.seen.length).toBe(seen);
    const line = await proxy.log((log) => JSON.stringify(log).includes("unknown_ca"));
    expect(JSON.stringify(line)).toContain("passthrough_hosts");
  });
});

describe.skipIf(!works("git", "--version") || !works("git", "http-backend", "--help"))(
  "git",
  () => {
    let environmentOf: Record<string, string>;
    let url: string;

    const git = (...args: string[]): Promise<{ stdout: string }> =>
      run("git", args, { env: environmentOf, cwd: work });

    beforeAll(async () => {
      environmentOf = environment({
        HTTPS_PROXY: proxy.url,
        GIT_SSL_CAINFO: proxy.caFile,
        GIT_CONFIG_NOSYSTEM: "1",
        GIT_TERMINAL_PROMPT: "0",
        GIT_AUTHOR_NAME: "a",
        GIT_AUTHOR_EMAIL: "a@allowed.test",
        GIT_COMMITTER_NAME: "a",
        GIT_COMMITTER_EMAIL: "a@allowed.test",
      });
      const bare = join(work, "served", "repo.git");
      await mkdir(bare, { recursive: true });
      await git("init", "-q", "--bare", "-b", "main", bare);
      await git("-C", bare, "config", "http.receivepack", "true");
      const seed = join(work, "seed");
      await git("init", "-q", "-b", "main", seed);
      await writeFile(join(seed, "file.txt"), "from the origin\n");
      await git("-C", seed, "add", ".");
      await git("-C", seed, "commit", "-qm", "first");
      await git("-C", seed, "push", "-q", bare, "main");
      for (const path of [
        "/repo.git/info/refs",
        "/repo.git/git-upload-pack",
        "/repo.git/git-receive-pack",
      ]) {
        origin.on(path, backend(join(work, "served")));
      }
      url = `https://${at}/repo.git`;
    });

    test("clones, and pushes more than it buffers", async () => {
      const clone = join(work, "clone");
      await git("clone", "-q", url, clone);
      expect(await readFile(join(clone, "file.txt"), "utf8")).toBe("from the origin\n");
      // Longer than http.postBuffer, so that git sends it in chunks of unknown length.
      const noise = Array.from({ length: 200_000 }, (_, index) => (index * 7919) % 104_729).join(
        "\n",
      );
      await writeFile(join(clone, "large.txt"), noise);
      await git("-C", clone, "add", ".");
      await git("-C", clone, "commit", "-qm", "second");
      await git("-C", clone, "-c", "http.postBuffer=65536", "push", "-q", "origin", "main");
      const { stdout } = await git("-C", join(work, "served", "repo.git"), "log", "--format=%s");
      expect(stdout.trim().split("\n")).toEqual(["second", "first"]);
      expect(await wasSeen("/repo.git/git-receive-pack")).toBe(true);
    });

    test("is told when a path is refused", async () => {
      const failed = git("clone", "-q", `https://${at}/denied/repo.git`, join(work, "never"));
      await expect(failed).rejects.toThrow(/403/);
    });
  },
);

/** Runs `git http-backend` as CGI (RFC 3875). */
function backend(root: string): Handler {
  return async (request, response, seen) => {
    const body = await readAll(request, seen);
    const [path = "", query = ""] = seen.url.split("?");
    const child = spawn("git", ["http-backend"], {
      env: environment({
        GIT_PROJECT_ROOT: root,
        GIT_HTTP_EXPORT_ALL: "1",
        PATH_INFO: path,
        QUERY_STRING: query,
        REQUEST_METHOD: seen.method,
        CONTENT_TYPE: seen.headers["content-type"] ?? "",
        CONTENT_LENGTH: String(body.length),
        HTTP_CONTENT_ENCODING: seen.headers["content-encoding"] ?? "",
        GIT_PROTOCOL: String(seen.headers["git-protocol"] ?? ""),
        REMOTE_USER: "a",
      }),
      stdio: ["pipe", "pipe", "ignore"],
    });
    child.stdin.on("error", () => undefined);
    child.stdin.end(body);
    const chunks: Buffer[] = [];
    for await (const chunk of child.stdout) chunks.push(chunk as Buffer);
    const all = Buffer.concat(chunks);
    const at = all.indexOf("\r\n\r\n");
    for (const line of all.toString("latin1", 0, at).split("\r\n")) {
      const [name = "", value = ""] = line.split(": ");
      if (name.toLowerCase() === "status") response.statusCode = Number(value.slice(0, 3));
      else response.setHeader(name, value);
    }
    response.end(all.subarray(at + 4));
  };
}

describe("Node", () => {
  test.each([false, true])("fetch through a proxy agent, HTTP/2 allowed: %s", async (allowH2) => {
    const dispatcher = new ProxyAgent({
      uri: proxy.url,
      requestTls: { ca: proxy.ca },
      proxyTunnel: true,
      allowH2,
    });
    const path = `/fetch-${String(allowH2)}`;
    const response = await fetch(`https://${at}${path}`, { dispatcher });
    expect(response.status).toBe(200);
    expect(await response.text()).toBe("OK-SECRET");
    expect(await wasSeen(path)).toBe(true);
    const posted = await fetch(`https://${at}/echo`, {
      dispatcher,
      method: "POST",
      body: "posted",
    });
    expect(await posted.text()).toBe("posted");
    const refused = await fetch(`https://${at}/denied/x`, { dispatcher });
    expect(refused.status).toBe(403);
    expect(await refused.json()).toMatchObject({ error: "policy.forbidden" });
    await dispatcher.close();
  });

  test("node:https with a CONNECT of its own", async () => {
    const { host, port } = proxy.address("forward");
    const socket = await new Promise<Socket>((resolve, reject) => {
      requestHttp({ host, port, method: "CONNECT", path: at, headers: { Host: at } })
        .on("connect", (_response, tunnel) => resolve(tunnel))
        .on("error", reject)
        .end();
    });
    const secured = connectTls({ socket, ca: proxy.ca, servername: allowed });
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      requestHttps({
        host: allowed,
        port: origin.port,
        path: "/node-https",
        createConnection: () => secured,
      })
        .on("response", resolve)
        .on("error", reject)
        .end();
    });
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    expect(Buffer.concat(chunks).toString()).toBe("OK-SECRET");
    expect(await wasSeen("/node-https")).toBe(true);
  });

  test("a program with HTTPS_PROXY and NODE_EXTRA_CA_CERTS and nothing else", async () => {
    const script = `const r = await fetch(process.argv[1]); console.log(r.status, await r.text());`;
    const { stdout } = await run(
      process.execPath,
      ["--input-type=module", "-e", script, `https://${at}/env`],
      {
        env: environment({
          HTTPS_PROXY: proxy.url,
          NODE_EXTRA_CA_CERTS: proxy.caFile,
          NODE_USE_ENV_PROXY: "1",
        }),
      },
    );
    expect(stdout.trim()).toBe("200 OK-SECRET");
    expect(await wasSeen("/env")).toBe(true);
  });
});

describe.skipIf(!works("python3", "--version"))("Python", () => {
  test("urllib with HTTPS_PROXY and SSL_CERT_FILE", async () => {
    const script = [
      "import sys, urllib.request, urllib.error",
      "at = sys.argv[1]",
      "print(urllib.request.urlopen(f'https://{at}/python', timeout=15).read().decode())",
      "print(urllib.request.urlopen(f'https://{at}/echo', data=b'posted', timeout=15).read().decode())",
      "try: urllib.request.urlopen(f'https://{at}/denied/x', timeout=15)",
      "except urllib.error.HTTPError as error: print(error.code, error.read().decode())",
    ].join("\n");
    const { stdout } = await run("python3", ["-c", script, at], {
      env: environment({ HTTPS_PROXY: proxy.url, SSL_CERT_FILE: proxy.caFile }),
    });
    const [first, second, third = ""] = stdout.trim().split("\n");
    expect([first, second]).toEqual(["OK-SECRET", "posted"]);
    expect(third).toMatch(/^403 .*policy\.forbidden/);
    expect(await wasSeen("/python")).toBe(true);
  });

  test("ssl in strict mode, by hand", async () => {
    const script = [
      "import socket, ssl, sys",
      "port, at, ca = int(sys.argv[1]), sys.argv[2], sys.argv[3]",
      "context = ssl.create_default_context(cafile=ca)",
      "context.verify_flags |= ssl.VERIFY_X509_STRICT",
      "raw = socket.create_connection(('127.0.0.1', port), timeout=15)",
      "raw.sendall(f'CONNECT {at} HTTP/1.1\\r\\nHost: {at}\\r\\n\\r\\n'.encode())",
      "seen = b''",
      "while not seen.endswith(b'\\r\\n\\r\\n'): seen += raw.recv(1)",
      "assert seen.startswith(b'HTTP/1.1 200 '), seen",
      "tls = context.wrap_socket(raw, server_hostname=at.split(':')[0])",
      "tls.sendall(f'GET /strict HTTP/1.1\\r\\nHost: {at}\\r\\nConnection: close\\r\\n\\r\\n'.encode())",
      "print(b''.join(iter(lambda: tls.recv(4096), b'')).decode())",
    ].join("\n");
    const { port } = proxy.address("forward");
    const { stdout } = await run("python3", ["-c", script, String(port), at, proxy.caFile], {
      env: environment(),
    });
    expect(stdout).toContain("OK-SECRET");
  });
});

// certutil is in Debian's libnss3-tools.
describe.skipIf(!works(chromium, "--version") || !has("certutil"))("headless Chromium", () => {
  test("loads a page and what the page asks for", { timeout: 60_000 }, async () => {
    origin.on("/page", (_request, response) => {
      response.setHeader("content-type", "text/html");
      response.end(
        `<body>waiting<script>fetch("/data").then(r => r.text()).then(t => document.body.textContent = "got " + t)</script>`,
      );
    });
    // Chromium takes further authorities from the NSS store below HOME, which certutil fills.
    const home = join(work, "chromium-home");
    const store = `sql:${join(home, ".pki/nssdb")}`;
    await mkdir(join(home, ".pki/nssdb"), { recursive: true });
    await run("certutil", ["-N", "--empty-password", "-d", store]);
    await run("certutil", ["-A", "-d", store, "-t", "C,,", "-n", "bridge", "-i", proxy.caFile]);
    const { stdout } = await run(
      chromium,
      [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        `--user-data-dir=${join(work, "profile")}`,
        `--proxy-server=${proxy.url}`,
        "--proxy-bypass-list=<-loopback>",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-quic",
        "--virtual-time-budget=10000",
        "--dump-dom",
        `https://${at}/page`,
      ],
      { env: { ...environment(), HOME: home }, timeout: 50_000 },
    );
    expect(stdout).toContain("got OK-SECRET");
    expect(await wasSeen("/data")).toBe(true);
  });
});
