/** `run -- COMMAND` and `init` as processes, with commands that know nothing of a proxy. */
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { starters } from "../../src/cli/arguments/commands.ts";
import { parse } from "yaml";
import { TestAuthority } from "../support/certs.ts";
import { eventually } from "../support/eventually.ts";
import { mainFile } from "../support/program.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const name = "origin.test";

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

let directory = "";
let origin: TlsOrigin;
let file = "";

function start(...args: readonly string[]): ChildProcess {
  return spawn(process.execPath, [mainFile, ...args], {
    cwd: directory,
    // Nothing of a proxy or of trust comes from outside, and what is left behind is seen.
    env: {
      PATH: process.env["PATH"] ?? "",
      HOME: directory,
      TMPDIR: join(directory, "tmp"),
      URL: `https://${origin.at(name)}/`,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

function ended(child: ChildProcess): Promise<Ended> {
  let stdout = "";
  let stderr = "";
  child.stdout?.on("data", (chunk) => (stdout += String(chunk)));
  child.stderr?.on("data", (chunk) => (stderr += String(chunk)));
  return new Promise((resolve) => child.once("close", (code) => resolve({ code, stdout, stderr })));
}

const cli = (...args: readonly string[]): Promise<Ended> => ended(start(...args));
const run = (...args: readonly string[]): Promise<Ended> => cli("run", ...args);
const script = (code: string): readonly string[] => [process.execPath, "-e", code];

const isMissing = (...command: [string, ...string[]]): boolean => {
  try {
    execFileSync(command[0], command.slice(1), { stdio: "ignore" });
    return false;
  } catch {
    return true;
  }
};

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "authbridge-run-test-"));
  await mkdir(join(directory, "tmp"));
  const authority = await TestAuthority.create("origin root");
  origin = await TlsOrigin.start(await authority.server([name]));
  await writeFile(join(directory, "roots.crt"), authority.caPem);
  file = await configFile("proxy.yaml", "{ default: allow }");
});

afterAll(async () => {
  await origin.close();
  await rm(directory, { recursive: true, force: true });
});

async function configFile(
  fileName: string,
  outbound: string,
  roles = "[forward]",
): Promise<string> {
  const path = join(directory, fileName);
  // The addresses are those of a machine where the file is at home; none of them is bound here.
  const text = `egress_enforcement: enforce-redirect
listener: { roles: ${roles}, forward_proxy_addr: "192.0.2.1:8081", reverse_proxy_backend: "http://127.0.0.1:1" }
egress: { allow_ips: [127.0.0.1/32], hosts: { ${name}: [127.0.0.1], evil.test: [127.0.0.1] } }
pipeline: { inbound: { default: deny }, outbound: ${outbound} }
tls_bridge: { mode: enabled, ca_dir: /nonexistent, ports: [${origin.port}], upstream_ca_bundle: ${join(directory, "roots.crt")} }
`;
  await writeFile(path, text);
  return path;
}

describe("a command behind the proxy", () => {
  const fetchIt = script("fetch(process.env.URL).then((r) => r.text()).then(console.log)");
  const python =
    "import os, urllib.request as u; print(u.urlopen(os.environ['URL']).read().decode())";

  describe.each([
    ["node", fetchIt],
    ["curl", ["sh", "-c", 'curl -sS "$URL" && echo']],
    ["python3", ["python3", "-c", python]],
  ] as const)("%s", (program, command) => {
    test.skipIf(isMissing(program, "--version"))(
      "is seen inside TLS, its output its own",
      async () => {
        const { code, stdout, stderr } = await run("--config", file, "--", ...command);
        expect({ code, stdout }, stderr).toEqual({ code: 0, stdout: "OK-SECRET\n" });
        expect(stderr).toContain(`reached  ${origin.at(name)}  GET\n`);
        expect(stderr).not.toContain("OK-SECRET");
      },
    );
  });

  test("what the file does not allow is refused and told", async () => {
    const rules = "{ name: egress-policy, config: { allow: [origin.test] } }";
    const fenced = await configFile("fenced.yaml", `{ default: deny, plugins: [${rules}] }`);
    const seen = origin.seen.length;
    const { code, stdout, stderr } = await run(
      "--config",
      fenced,
      "--",
      "sh",
      "-c",
      `
      curl -sS -o /dev/null "$URL" && curl -sS "https://evil.test:${origin.port}/"`,
    );
    expect(code, stderr).toBe(0);
    // The command itself reads why.
    expect(JSON.parse(stdout)).toMatchObject({
      error: "policy.forbidden",
      plugin: "egress-policy",
    });
    expect(stderr).toMatch(/refused {2}evil\.test:\d+ +CONNECT {2}egress-policy/);
    expect(stderr).toContain("1 refused, 1 reached");
    expect(origin.seen.length).toBe(seen + 1);
  });

  test("without a file everything is let through but what no agent may reach", async () => {
    const code = `fetch("http://169.254.169.254/latest").then(({ status }) => process.exit(status - 400))`;
    const ran = await run("--", ...script(code));
    // The command gets a response: plain HTTP in a CONNECT is judged request by request.
    expect(ran.code, ran.stderr).toBe(3);
    expect(ran.stderr).toMatch(/refused {2}169\.254\.169\.254(?::80)? +GET {2}upstream\./);
    expect(ran.stderr).toMatch(/ 0 reached/);
  });

  test("a policy file fences it", async () => {
    const policy = join(directory, "policy.yaml");
    await writeFile(
      policy,
      `version: 1
network_policies:
  api:
    endpoints: [{ host: api.test, port: 443 }]
`,
    );
    const code = `fetch("https://evil.test/").then((r) => process.exit(r.status - 400))`;
    const ran = await run("--policy", policy, "--", ...script(code));
    expect(ran.code, ran.stderr).toBe(3);
    expect(ran.stderr).toMatch(/refused {2}evil\.test:443 {2}CONNECT {2}egress-policy/);
  });

  test("the policy that lets it through is told, written, and lets it through", async () => {
    const { port } = origin;
    const url = (host: string, path: string) => `https://${host}:${port}${path}`;
    const rules = "{ name: egress-policy, config: { allow: [origin.test] } }";
    const fenced = await configFile("to-learn.yaml", `{ default: deny, plugins: [${rules}] }`);
    const code = `
      const ask = (url, init) => fetch(url, init).then((r) => r.arrayBuffer(), () => undefined);
      await ask("${url(name, "/items/42?key=secret")}");
      await ask("${url("evil.test", "/v1/chat?key=secret")}", { method: "POST", body: "x" });
      await ask("http://169.254.169.254/latest");`;
    const command = script(`(async () => {${code}})()`);
    const learned = join(directory, "learned.yaml");
    const ran = await run("--config", fenced, "--learn", learned, "--", ...command);
    expect(ran.code, ran.stderr).toBe(0);
    const text = await readFile(learned, "utf8");
    expect(ran.stderr.endsWith(text), ran.stderr).toBe(true);
    expect(text).not.toContain("secret");
    expect(text).toContain("# not suggested: 169.254.169.254:80: cloud metadata");
    const { version, network_policies: entries } = parse(text) as {
      version: number;
      network_policies: Record<string, { endpoints: object[] }>;
    };
    expect(version).toBe(1);
    const found = Object.values(entries).flatMap(({ endpoints }) => endpoints);
    expect(found).toMatchObject([
      { host: "evil.test", port, rules: [{ allow: { method: "POST", path: "/v1/chat" } }] },
      { host: name, port, rules: [{ allow: { method: "GET", path: "/items/*" } }] },
    ]);
    const held = await configFile(
      "held.yaml",
      `{ default: deny, plugins: [{ name: egress-policy, config: { policy_file: ${learned} } }] }`,
    );
    const again = await run("--config", held, "--", ...command);
    // Let through, as far as the policy is asked: evil.test has no certificate.
    expect(again.stderr).toMatch(/failed {2}evil\.test:\d+ +POST {2}upstream\.tls/);
    expect(again.stderr).toMatch(
      /reached {2}origin\.test:\d+ +GET\n {2}1 refused, 1 failed, 1 reached/,
    );
  });

  test("what was refused ends the run, with the lines that would allow it", async () => {
    const rules = "{ name: egress-policy, config: { allow: [origin.test] } }";
    const fenced = await configFile("refusing.yaml", `{ default: deny, plugins: [${rules}] }`);
    const code = `fetch("https://evil.test:${origin.port}/v1/chat?key=secret").catch(() => {})`;
    const ran = await run("--config", fenced, "--", ...script(code));
    expect(ran.code, ran.stderr).toBe(0);
    const [, lines = ""] = ran.stderr.split("would allow what was refused:\n");
    expect(lines).not.toContain("secret");
    expect(parse(lines)).toMatchObject({
      network_policies: {
        [`allow_evil_test_${origin.port}`]: {
          endpoints: [
            { host: "evil.test", rules: [{ allow: { method: "GET", path: "/v1/chat" } }] },
          ],
        },
      },
    });
    const nothing = await run("--config", fenced, "--", "true");
    expect(nothing.stderr).not.toContain("would allow");
  });

  test("--allow opens hosts for one run, and closes the others", async () => {
    const code = `
      const ask = (host) => fetch("https://" + host + "/").then((r) => r.json(), () => "unreached");
      Promise.all(["evil.test", "other.test"].map(ask)).then((all) => console.log(JSON.stringify(all)))`;
    const ran = await run("--allow", "evil.test", "--", ...script(code));
    expect(ran.code, ran.stderr).toBe(0);
    const [opened, refused] = JSON.parse(ran.stdout) as object[];
    // Opened as far as the policy goes: nobody is there.
    expect(opened).toMatchObject({ error: expect.stringMatching(/^upstream\./) as string });
    expect(refused).toMatchObject({
      error: "policy.forbidden",
      details: {
        missing: { host: "other.test", port: 443 },
        add: { once: "authbridge-proxy run --allow other.test:443 -- COMMAND" },
      },
    });
    expect(ran.stderr).toContain("for one run: authbridge-proxy run --allow other.test:443 -- …");
  });

  test.skipIf(process.platform !== "linux" || isMissing("curl", "--version"))(
    "an entry for the executable of the proxy admits nothing that it starts",
    async () => {
      const entry = `{ endpoints: [{ host: origin.test, port: ${origin.port} }], binaries: [{ path: ${process.execPath} }] }`;
      const plugins = `[{ name: egress-policy, config: { network_policies: { node: ${entry} } } }]`;
      const fenced = await configFile("by-binary.yaml", `{ default: deny, plugins: ${plugins} }`);
      const curl = await run("--config", fenced, "--", "sh", "-c", 'curl -sS "$URL"');
      expect(JSON.parse(curl.stdout), curl.stderr).toMatchObject({ error: "policy.forbidden" });
      const code = `fetch(process.env.URL).then((r) => console.log(r.status))`;
      const node = await run("--config", fenced, "--", ...script(code));
      expect(node.stdout, node.stderr).toBe("200\n");
    },
  );

  test("--allow adds to a policy, also where it judges the requests of the host", async () => {
    const policy = join(directory, "one-path.yaml");
    const rules = "[{ allow: { method: GET, path: /one } }]";
    await writeFile(
      policy,
      `version: 1
network_policies:
  api:
    endpoints: [{ host: origin.test, port: ${origin.port}, protocol: rest, enforcement: enforce, rules: ${rules} }]
`,
    );
    const plugins = `[{ name: egress-policy, config: { policy_file: ${policy} } }]`;
    const fenced = await configFile("one-path-file.yaml", `{ default: deny, plugins: ${plugins} }`);
    const code = `fetch(process.env.URL).then((r) => console.log(r.status))`;
    expect((await run("--config", fenced, "--", ...script(code))).stdout).toBe("403\n");
    const allow = ["--allow", origin.at(name)];
    const open = await run("--config", fenced, ...allow, "--", ...script(code));
    expect(open.stdout, open.stderr).toBe("200\n");
    const none = await run("--config", file, ...allow, "--", "true");
    expect(none.code).toBe(2);
    expect(none.stderr).toContain("egress-policy");
  });

  test.skipIf(process.platform !== "linux" || isMissing("curl", "--version"))(
    "--allow-ip opens an address that the guard closes, and the run says so",
    async () => {
      const inside = createServer((_request, response) => response.end("inside"));
      await new Promise<void>((resolve) => {
        inside.listen(0, "127.0.0.2", resolve);
      });
      const { port } = inside.address() as AddressInfo;
      const curl = ["curl", "-sS", `http://127.0.0.2:${port}/`];
      const closed = await run("--", ...curl);
      expect(closed.stdout).toContain("upstream.address-forbidden");
      expect(closed.stderr).toContain(
        "for one run: authbridge-proxy run --allow-ip 127.0.0.2 -- …",
      );
      const opened = await run("--allow-ip", "127.0.0.2", "--", ...curl);
      expect(opened.stdout, opened.stderr).toBe("inside");
      inside.close();
    },
  );

  test("one that tries nothing is told as that", async () => {
    const { stderr, code } = await run("--", "true");
    expect(code).toBe(0);
    expect(stderr).toContain("nothing: it made no request, spoke to this machine only");
    expect(stderr).toMatch(
      /true runs behind http:\/\/127\.0\.0\.1:\d+; watch it at http:\/\/127\.0\.0\.1:\d+\/\n/,
    );
  });

  test("leaves no key behind when a signal ends it before its command runs", async () => {
    const made = async (): Promise<string[]> =>
      (await readdir(join(directory, "tmp"), { recursive: true })).filter((path) =>
        path.startsWith("authbridge-run-"),
      );
    const before = await made();
    const child = start("run", "--", ...script("setInterval(() => {}, 1000)"));
    const result = ended(child);
    await eventually(async () => (await made()).some((path) => path.endsWith("run.yaml")));
    child.kill("SIGTERM");
    expect((await result).code).toBe(143);
    expect(await made()).toEqual(before);
  });

  test("leaves no file behind, and nothing listens any more", async () => {
    const { stdout } = await run("--", ...script("console.log(process.env.HTTPS_PROXY)"));
    const left = await readdir(join(directory, "tmp"));
    expect(left.filter((entry) => entry !== "node-compile-cache")).toEqual([]);
    await expect(fetch(stdout.trim())).rejects.toThrow();
  });
});

describe("the exit code", () => {
  test.each([
    ["of the command", ["sh", "-c", "exit 42"], 42],
    ["128 and the signal that ended it", ["sh", "-c", "kill -KILL $$"], 137],
    ["127 for what is not there", ["./not-there"], 127],
    ["126 for what cannot be run", ["./proxy.yaml"], 126],
  ])("is %s", async (_title, command, wanted) => {
    const { code, stderr } = await run("--config", file, "--", ...command);
    expect(code, stderr).toBe(wanted);
  });

  test.each([
    ["a file that is none", ["--config", "/nonexistent.yaml", "--", "true"], /nonexistent/],
    ["a policy that is none", ["--policy", "/nonexistent.yaml", "--", "true"], /nonexistent/],
    ["no command", ["--"], /needs a command/],
  ])("is 2 for %s", async (_title, args, words) => {
    const { code, stdout, stderr } = await run(...args);
    expect({ code, stdout }).toEqual({ code: 2, stdout: "" });
    expect(stderr).toMatch(words);
  });

  test("is 2 for a file whose agents have to say who they are", async () => {
    const path = join(directory, "callers.yaml");
    const callers = "callers: { clients: [{ name: a, password: b }] }\n";
    await writeFile(path, `listener: { roles: [forward] }\n${callers}`);
    const { code, stderr } = await run("--config", path, "--", "true");
    expect(code).toBe(2);
    expect(stderr).toContain("callers");
  });

  test("is 2 for a file with a variable that is not set", async () => {
    const path = join(directory, "unset.yaml");
    const mappings = "{ api.test: $NOT_SET_ANYWHERE }";
    const inject = `{ name: static-inject, config: { source: mappings, mappings: ${mappings} } }`;
    await writeFile(
      path,
      `listener: { roles: [forward] }\npipeline: { outbound: { plugins: [${inject}] } }\n`,
    );
    const { code, stderr } = await run("--config", path, "--", "true");
    expect({ code, stderr }).toMatchObject({ code: 2 });
    expect(stderr).toContain("${NOT_SET_ANYWHERE}");
  });

  test("is 2 for a file without a forward proxy", async () => {
    const path = join(directory, "inbound.yaml");
    await writeFile(
      path,
      'listener: { roles: [reverse], reverse_proxy_backend: "http://127.0.0.1:1" }\n',
    );
    const { code, stderr } = await run("--config", path, "--", "true");
    expect(code).toBe(2);
    expect(stderr).toContain("listener.roles");
  });
});

describe("signals", () => {
  test.each(["SIGTERM", "SIGINT", "SIGHUP", "SIGUSR2"] as const)(
    "%s reaches the command, whose exit code is the answer",
    async (signal) => {
      const code = `process.on("${signal}", () => process.exit(9)); setInterval(() => {}, 1e6); console.log("ready")`;
      const child = start("run", "--", ...script(code));
      const end = ended(child);
      child.stdout?.once("data", () => child.kill(signal));
      const { code: exit, stderr } = await end;
      expect(exit, stderr).toBe(9);
      expect(stderr).toContain("tried to reach");
    },
  );
});

test("a file with both roles opens its forward proxy only, and says so", async () => {
  const both = await configFile("both.yaml", "{ default: deny }", "[reverse, forward]");
  const { code, stderr } = await run("--config", both, "--", "true");
  expect(code, stderr).toBe(0);
  expect(stderr).toContain("its reverse proxy is not");
});

describe("init", () => {
  test.each(starters)("--%s writes a commented file that check accepts", async (starter) => {
    const path = `${starter}.yaml`;
    const made = await cli("init", `--${starter}`, "--config", path);
    expect(made).toMatchObject({ code: 0, stderr: "" });
    expect(made.stdout).toContain(`check --config ${path}`);
    const text = await readFile(join(directory, path), "utf8");
    expect(text.match(/#/g)?.length).toBeGreaterThan(10);
    expect(text).not.toContain("$schema");
    const checked = await cli("check", "--config", path);
    expect(checked.code, checked.stderr).toBe(0);
    expect(JSON.parse(checked.stdout)).toMatchObject({
      pipeline: { outbound: { default: "deny" } },
    });
  });

  test("without options it is for this machine, and never takes the place of a file", async () => {
    expect((await cli("init")).code).toBe(0);
    const path = join(directory, "authbridge.yaml");
    expect(await readFile(path, "utf8")).toContain("127.0.0.1:8081");
    // What the file says of itself is so: nothing listens where others can reach it.
    const { listener, stats, egress_enforcement } = JSON.parse(
      (await cli("check", "--config", path)).stdout,
    ) as {
      listener: Record<string, unknown>;
      stats: { address: string };
      egress_enforcement: string;
    };
    const addresses = Object.entries(listener).flatMap(([key, value]) =>
      key.endsWith("_addr") ? [value] : [],
    );
    expect(
      [...addresses, stats.address].filter((one) => !String(one).startsWith("127.0.0.1:")),
    ).toEqual([]);
    expect(egress_enforcement).toBe("none");
    await writeFile(path, "mine");
    const again = await cli("init");
    expect(again.code).toBe(2);
    expect(again.stderr).toContain("is there already");
    expect(await readFile(path, "utf8")).toBe("mine");
  });
});
