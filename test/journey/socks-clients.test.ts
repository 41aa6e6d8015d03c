/** Real clients of SOCKS5, and of plain HTTP inside a CONNECT; what a machine lacks is skipped, and said. */
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { EnvHttpProxyAgent, fetch, ProxyAgent, Socks5ProxyAgent } from "undici";
import { beforeAll, describe, expect, test } from "vitest";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const run = promisify(execFile);
const own = owner();
const callers = { clients: [{ name: "agent", password: "secret" }] };
const policy = { name: "egress-policy", config: { allow: ["**"], deny: ["denied.test"] } };
const hosts = { "named.test": ["127.0.0.1"], "denied.test": ["127.0.0.1"] };

/** A program with a module, where it is named: what it takes to run it, or undefined. */
async function has(program: string, ...args: readonly string[]): Promise<boolean> {
  try {
    await run(program, [...args], { timeout: 60_000 });
    return true;
  } catch {
    process.stderr.write(`SKIPPED: ${[program, ...args].join(" ")} does not run here\n`);
    return false;
  }
}

const folder = process.env["CLIENTS_BIN"];
const binary = (name: string): string => (folder === undefined ? name : join(folder, name));
const hasBun = await has(binary("bun"), "--version");
const hasDeno = await has(binary("deno"), "--version");
const python = process.env["CLIENTS_PYTHON"] ?? "python3";
const hasPip = await has(python, "-m", "pip", "--version");
const hasCurl = await has("curl", "--version");
const hasGit = await has("git", "--version");
const hasHttpx = await has(python, "-c", "import httpx, socksio");
const hasRequests = await has(python, "-c", "import requests, socks");

let origin: HttpOrigin;
let proxy: ProxyProcess;
let shared: ProxyProcess;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  const file = merge(outbound(policy), {
    listener: { socks_proxy_addr: "127.0.0.1:0" },
    egress: { hosts },
  });
  proxy = await own(ProxyProcess.start(settings(file)));
  shared = await own(ProxyProcess.start(settings(merge(file, { callers }))));
});

const url = (host = "named.test"): string => `http://${host}:${origin.port}/`;
const socksOf = (name: string, of: ProxyProcess, scheme = "socks5h", user = ""): string =>
  `${scheme}://${user}127.0.0.1:${of.address(name).port}`;
/** Nothing of a proxy comes from outside. */
const env = { PATH: process.env["PATH"] ?? "", HOME: tmpdir() };

describe.each(["forward", "socks"])("to the %s port", (port) => {
  test.runIf(hasCurl)("curl: names, addresses, credentials, refusals", async () => {
    const curl = async (...args: readonly string[]): Promise<string> =>
      (await run("curl", ["-sS", "--max-time", "15", ...args], { env })).stdout;
    expect(await curl("-x", socksOf(port, proxy), url())).toBe("hello from the origin");
    expect(await curl("-x", socksOf(port, proxy, "socks5"), url("127.0.0.1"))).toContain("hello");
    const at = `127.0.0.1:${proxy.address(port).port}`;
    expect(await curl("--socks5-hostname", at, url())).toContain("hello");
    const agent = socksOf(port, shared, "socks5h", "agent:secret@");
    expect(await curl("-x", agent, url())).toContain("hello");
    // curl's exit code of a proxy's refusal.
    const refused = { code: 97 };
    await expect(curl("-x", socksOf(port, shared), url())).rejects.toMatchObject(refused);
    const wrong = socksOf(port, shared, "socks5h", "agent:wrong@");
    await expect(curl("-x", wrong, url())).rejects.toMatchObject(refused);
  });

  test("undici", async () => {
    const agents = [
      new Socks5ProxyAgent(socksOf(port, proxy, "socks5")),
      new ProxyAgent(socksOf(port, proxy, "socks5")),
      new ProxyAgent(socksOf(port, shared, "socks5", "agent:secret@")),
    ];
    for (const dispatcher of agents) {
      await own(dispatcher);
      const response = await fetch(url(), { dispatcher });
      expect(await response.text()).toBe("hello from the origin");
    }
  });

  test.runIf(hasHttpx)("httpx", async () => {
    const script =
      "import httpx, sys; print(httpx.Client(proxy=sys.argv[1], trust_env=False).get(sys.argv[2]).text)";
    const { stdout } = await run(python, ["-c", script, socksOf(port, proxy), url()]);
    expect(stdout.trim()).toBe("hello from the origin");
  });

  test.runIf(hasRequests)("requests", async () => {
    const script =
      "import requests, sys; p = sys.argv[1]; print(requests.get(sys.argv[2], proxies={'http': p, 'https': p}).text)";
    const agent = socksOf(port, shared, "socks5h", "agent:secret@");
    const { stdout } = await run(python, ["-c", script, agent, url()], { env });
    expect(stdout.trim()).toBe("hello from the origin");
  });

  test.runIf(hasGit)("git asks over it", async () => {
    const asked: string[] = [];
    const server = createServer((request, response) => {
      asked.push(`${request.headers.host} ${request.url}`);
      response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    await own({ close: () => void server.close() });
    const at = (server.address() as AddressInfo).port;
    const directory = await mkdtemp(join(tmpdir(), "authbridge-git-"));
    await own({ close: () => rm(directory, { recursive: true }) });
    const proxied = ["-c", `http.proxy=${socksOf(port, proxy)}`];
    const asking = run("git", [...proxied, "ls-remote", `http://named.test:${at}/repo.git`], {
      env: { ...env, HOME: directory, GIT_TERMINAL_PROMPT: "0", GIT_CONFIG_NOSYSTEM: "1" },
    });
    await expect(asking).rejects.toThrow(/not found/);
    expect(asked[0]).toBe(`named.test:${at} /repo.git/info/refs?service=git-upload-pack`);
  });
});

test.each([
  [
    "ProxyAgent",
    () => new ProxyAgent({ uri: `http://127.0.0.1:${proxy.forward.port}`, proxyTunnel: true }),
  ],
  [
    "EnvHttpProxyAgent",
    () =>
      new EnvHttpProxyAgent({ httpProxy: `http://127.0.0.1:${proxy.forward.port}`, noProxy: "" }),
  ],
])("undici's %s fetches plain HTTP, and what is refused is not reached", async (_name, make) => {
  const dispatcher = await own(make());
  expect(await (await fetch(url(), { dispatcher })).text()).toBe("hello from the origin");
  const before = origin.requests.length;
  // In absolute form there is a response to show; a CONNECT that is refused is an error of the client.
  const refused = await fetch(url("denied.test"), { dispatcher }).then(
    ({ status }) => status,
    (error: Error) => String(error.cause instanceof Error ? error.cause.cause : error),
  );
  expect(String(refused)).toContain("403");
  expect(origin.requests.length).toBe(before);
});

/** Releases of undici that Node lines carry, by the folder that they are installed in. */
const modules = process.env["CLIENTS_MODULES"];
if (modules === undefined)
  process.stderr.write(
    "SKIPPED: undici 6 and 7: CLIENTS_MODULES names no folder (.ci/clients installs them)\n",
  );

test.runIf(modules !== undefined).each([
  ["undici-6", "ProxyAgent"],
  ["undici-6", "EnvHttpProxyAgent"],
  ["undici-7", "ProxyAgent"],
  ["undici-7", "EnvHttpProxyAgent"],
])("%s: its %s fetches plain HTTP", async (release, agent) => {
  const program = `
    import { createRequire } from "node:module";
    const undici = createRequire(${JSON.stringify(join(modules ?? "", "/"))})(${JSON.stringify(release)});
    const uri = "http://127.0.0.1:${proxy.forward.port}";
    const dispatcher = new undici.${agent}(${agent === "ProxyAgent" ? "{ uri, proxyTunnel: true }" : "{ httpProxy: uri, noProxy: '' }"});
    console.log(await (await undici.fetch(${JSON.stringify(url())}, { dispatcher })).text());
    await dispatcher.close();`;
  const args = ["--input-type=module", "-e", program];
  const { stdout } = await run(process.execPath, args, { env });
  expect(stdout.trim()).toBe("hello from the origin");
});

test.runIf(hasPip)(
  "pip installs a package of an index that only the proxy can reach by name",
  async () => {
    const directory = await mkdtemp(join(tmpdir(), "authbridge-pip-"));
    await own({ close: () => rm(directory, { recursive: true }) });
    const sources = join(directory, "hello_agent");
    await mkdir(join(sources, "hello_agent"), { recursive: true });
    await writeFile(join(sources, "hello_agent", "__init__.py"), "word = 'hello'\n");
    const wheel = "hello_agent-1.0-py3-none-any.whl";
    const pack = `
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    wheel.write(sys.argv[2] + "/hello_agent/__init__.py", "hello_agent/__init__.py")
    wheel.writestr("hello_agent-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: hello-agent\\nVersion: 1.0\\n")
    wheel.writestr("hello_agent-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nGenerator: test\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
    wheel.writestr("hello_agent-1.0.dist-info/RECORD", "")
`;
    await run(python, ["-c", pack, join(directory, wheel), sources]);
    const bytes = await readFile(join(directory, wheel));
    const index = createServer((request, response) => {
      if (request.url === `/${wheel}`) response.end(bytes);
      else if (request.url === "/simple/hello-agent/")
        response.setHeader("Content-Type", "text/html").end(`<a href="/${wheel}">${wheel}</a>`);
      else response.writeHead(404).end();
    });
    await new Promise<void>((resolve) => index.listen(0, "127.0.0.1", resolve));
    await own({ close: () => void index.close() });
    const at = `http://named.test:${(index.address() as AddressInfo).port}/simple`;
    const target = join(directory, "installed");
    const asked = ["--index-url", at, "--trusted-host", "named.test", "--target", target];
    const options = ["--isolated", "--no-deps", "--no-cache-dir", "--disable-pip-version-check"];
    const through = ["--proxy", `http://127.0.0.1:${proxy.forward.port}`];
    await run(python, ["-m", "pip", "install", ...options, ...asked, ...through, "hello-agent"], {
      env,
    });
    expect(await readFile(join(target, "hello_agent", "__init__.py"), "utf8")).toContain("hello");
  },
);

const script = "console.log(await (await fetch(ADDRESS)).text())";
test.runIf(hasBun)("Bun's fetch takes the proxy of the environment", async () => {
  const code = script.replace("ADDRESS", JSON.stringify(url()));
  const { stdout } = await run(binary("bun"), ["-e", code], { env: proxied() });
  expect(stdout.trim()).toBe("hello from the origin");
});

test.runIf(hasDeno)("Deno's fetch takes the proxy of the environment, SOCKS5 as well", async () => {
  const code = script.replace("ADDRESS", JSON.stringify(url()));
  for (const address of [undefined, socksOf("socks", proxy)]) {
    const { stdout } = await run(binary("deno"), ["eval", code], { env: proxied(address) });
    expect(stdout.trim()).toBe("hello from the origin");
  }
});

function proxied(address = `http://127.0.0.1:${proxy.forward.port}`): Record<string, string> {
  return { ...env, NO_COLOR: "1", HTTP_PROXY: address, http_proxy: address };
}
