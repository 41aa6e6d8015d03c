/** The program in a shell and in a container: completion in real shells, the page of the manual, the health check. */
import { execFile, spawnSync } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { rows } from "../../src/cli/arguments/commands.ts";
import { isOnPath } from "../support/manifests.ts";
import { mainFile } from "../support/program.ts";

interface Result {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "authbridge-shell-"));
});
afterAll(() => rm(directory, { recursive: true, force: true }));

function cli(...args: readonly string[]): Promise<Result> {
  return new Promise((resolve) => {
    execFile(process.execPath, [mainFile, ...args], { timeout: 60_000 }, (error, stdout, stderr) =>
      resolve({ code: error === null ? 0 : Number(error.code), stdout, stderr }),
    );
  });
}

describe("completion in bash", () => {
  let script: string;
  beforeAll(async () => {
    const printed = await cli("completion", "bash");
    expect(printed).toMatchObject({ code: 0, stderr: "" });
    script = join(directory, "completion.bash");
    await writeFile(script, printed.stdout);
    await writeFile(join(directory, "proxy.yaml"), "");
  });

  /** What bash offers behind these words; the last one is being written. */
  function offered(...words: string[]): string[] {
    const line = `source "$1"; shift; COMP_WORDS=(authbridge-proxy "$@"); COMP_CWORD=$#
compopt() { :; }; _authbridge_proxy; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout, stderr } = spawnSync("bash", ["-c", line, "bash", script, ...words], {
      encoding: "utf8",
      cwd: directory,
    });
    expect(stderr).toBe("");
    return stdout.split("\n").filter((word) => word !== "");
  }

  test.skipIf(!isOnPath("bash", "--version")).each([
    [["doc"], ["doctor"]],
    [
      ["policy", ""],
      ["schema", "suggest", "test"],
    ],
    [["policy", "su"], ["suggest"]],
    [
      ["policy", "suggest", "--"],
      ["--config", "--from", "--help", "--json", "--lenient"],
    ],
    [
      ["tail", "--decision", ""],
      ["allow", "deny", "error"],
    ],
    [["env", "--config", "a.yaml", "--format", "ku"], ["kubernetes"]],
    [["check", "--config", "pro"], ["proxy.yaml"]],
    [["--con"], ["--config"]],
    [["completion", "z"], ["zsh"]],
    [["explain", "--path", "pro"], []],
  ])("%j is %j", (words, expected) => {
    expect(offered(...words)).toEqual(expect.arrayContaining(expected));
    if (expected.length === 0) expect(offered(...words)).toEqual([]);
    for (const word of offered(...words)) expect(word.startsWith(words.at(-1) ?? "")).toBe(true);
  });

  test.skipIf(!isOnPath("bash", "--version"))("knows every command", () => {
    const words = new Set(rows.slice(1).map(({ name }) => name.split(" ")[0] ?? ""));
    for (const word of words) if (!word.startsWith("--")) expect(offered("")).toContain(word);
  });
});

test.skipIf(!isOnPath("zsh", "--version"))(
  "completion in zsh offers commands and options",
  async () => {
    const { stdout: script } = await cli("completion", "zsh");
    await writeFile(join(directory, "completion.zsh"), script);
    // Without a terminal the functions of the completion system are stand-ins that print what they are given.
    const offered = (...words: string[]): string =>
      spawnSync(
        "zsh",
        [
          "-f",
          "-c",
          `compdef() { :; }; _describe() { print -l -- \${(P)2} }; _files() { print files }; compadd() { print -- "$@" }; _message() { :; }
source "$1"; shift; words=(authbridge-proxy "$@"); CURRENT=$(( $# + 1 )); _authbridge_proxy`,
          "zsh",
          join(directory, "completion.zsh"),
          ...words,
        ],
        { encoding: "utf8" },
      ).stdout;
    expect(offered("")).toMatch(/^doctor:check file/m);
    expect(offered("policy", "")).toMatch(/^suggest:/m);
    expect(offered("tail", "--")).toMatch(/^--decision:/m);
    expect(offered("tail", "--decision", "")).toContain("allow deny error");
    expect(offered("check", "--config", "")).toBe("files\n");
  },
);

test.skipIf(!isOnPath("fish", "--version"))(
  "completion in fish offers commands and options",
  async () => {
    const { stdout: script } = await cli("completion", "fish");
    await writeFile(join(directory, "completion.fish"), script);
    const offered = (line: string): string =>
      spawnSync("fish", ["-N", "-c", `source completion.fish; complete -C "${line}"`], {
        encoding: "utf8",
        cwd: directory,
        env: { ...process.env, HOME: directory },
      }).stdout;
    expect(offered("authbridge-proxy doc")).toMatch(/^doctor\t/m);
    expect(offered("authbridge-proxy policy su")).toMatch(/^suggest\t/m);
    expect(offered("authbridge-proxy tail --dec")).toMatch(/^--decision/m);
    expect(offered("authbridge-proxy tail --decision d")).toMatch(/^deny/m);
  },
);

test("a shell that is not known is refused with those that are", async () => {
  const refused = await cli("completion", "tcsh");
  expect(refused.code).toBe(2);
  expect(refused.stderr).toContain("bash, zsh or fish, not tcsh");
});

test("the page of the manual has every command and option, and no line that roff takes for its own", async () => {
  const { code, stdout } = await cli("man");
  expect(code).toBe(0);
  const plain = stdout.replaceAll("\\-", "-");
  for (const { name, parameters } of rows) {
    expect(plain).toContain(name);
    for (const { written } of Object.values(parameters)) expect(plain).toContain(written);
  }
  const requests = new Set([...stdout.matchAll(/^[.'](\S*)/gm)].map(([, request]) => request));
  expect(requests).toEqual(new Set(["B", "I", "PP", "RB", "RE", "RI", "RS", "SH", "TH", "TP"]));
});

describe("health", () => {
  let server: Server;
  let answers: Record<string, number>;
  beforeAll(async () => {
    server = createServer((request, response) => {
      response.writeHead(answers[request.url ?? ""] ?? 404);
      response.end("the words of the proxy\n");
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  });
  afterAll(() => void server.close());

  async function fileFor(address: string): Promise<string> {
    const file = join(directory, "health.yaml");
    await writeFile(file, `listener: { roles: [forward], health_addr: "${address}" }\n`);
    return file;
  }
  const port = (): number => (server.address() as AddressInfo).port;

  test.each([
    [{ "/livez": 200, "/readyz": 503 }, [], 0, ""],
    [{ "/livez": 200, "/readyz": 503 }, ["--ready"], 1, "/readyz says 503: the words of the proxy"],
    [{ "/livez": 200, "/readyz": 200 }, ["--ready"], 0, ""],
    [{ "/livez": 500 }, [], 1, "/livez says 500"],
  ])("%j with %j ends with %i", async (given, flags, code, words) => {
    answers = given;
    // Every address of the machine: the check asks on loopback.
    const file = await fileFor(`0.0.0.0:${port()}`);
    const asked = await cli("health", "--config", file, ...flags);
    expect(asked.code).toBe(code);
    expect(asked.stderr).toContain(words);
  });

  test("says where nobody answers", async () => {
    const gone = createServer();
    await new Promise<void>((resolve) => gone.listen(0, "127.0.0.1", resolve));
    const { port: closed } = gone.address() as AddressInfo;
    await new Promise((resolve) => gone.close(resolve));
    const asked = await cli("health", "--config", await fileFor(`127.0.0.1:${closed}`));
    expect(asked.code).toBe(1);
    expect(asked.stderr).toContain(`nothing answers at 127.0.0.1 port ${closed}`);
  });

  test("is refused where the file does not say where to ask", async () => {
    const asked = await cli("health", "--config", await fileFor("127.0.0.1:0"));
    expect(asked.code).toBe(2);
    expect(asked.stderr).toContain("listener.health_addr names no fixed port");
  });

  test("is what the image asks", () => {
    expect(readFileSync("Dockerfile", "utf8")).toMatch(
      /HEALTHCHECK[^\n]*\\\n +CMD \["node", "\/app\/dist\/main\.js", "health", "--config", "\/etc\/authbridge\/config\.yaml"\]/,
    );
  });
});
