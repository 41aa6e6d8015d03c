/** Approval in the terminal of `run`: what is shown there, who can say yes, and that the command cannot. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { enclosureProblem } from "../../src/cli/enforce/namespace.ts";
import { Approver } from "../support/approvals.ts";
import { HttpOrigin, reply } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { mainFile, runProgram } from "../support/program.ts";
import { hasTerminal, Terminal } from "../support/terminal.ts";

const own = owner();
const scratch = mkdtempSync(join(tmpdir(), "authbridge-approval-terminal-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

let origin: HttpOrigin;
let served: string[] = [];
beforeAll(async () => {
  origin = await own(
    HttpOrigin.launch(({ target, body }) => {
      served.push(`${target} ${body.toString()}`);
      return reply(200, "done");
    }),
  );
});
beforeEach(() => {
  served = [];
});

const secretFile = join(scratch, "operator");
writeFileSync(secretFile, "operator-secret");

function policies(): object {
  const rules = [{ ask: { method: "POST", path: "/**" } }];
  const endpoint = { host: "127.0.0.1", port: origin.port, protocol: "rest" };
  return { pay: { endpoints: [{ ...endpoint, enforcement: "enforce", rules }] } };
}

/** A policy file, for a run that has no other file. */
function policyFile(): string {
  const path = join(scratch, "policy.yaml");
  writeFileSync(path, JSON.stringify({ version: 1, network_policies: policies() }));
  return path;
}

function configFile(name: string, plugins: readonly unknown[], more: object = {}): string {
  const path = join(scratch, name);
  const file = {
    listener: { roles: ["forward"] },
    egress: { allow_ips: ["127.0.0.0/8"] },
    pipeline: { outbound: { plugins } },
    ...more,
  };
  writeFileSync(path, JSON.stringify(file));
  return path;
}

/** A file by which others may decide as well. */
const withSecret = (): string =>
  configFile("secret.yaml", [{ name: "egress-policy", config: { network_policies: policies() } }], {
    session: { api_secret_file: secretFile },
  });

function run(options: readonly string[], command: readonly string[]): Promise<Terminal> {
  const args = [mainFile, "run", ...options, "--", ...command];
  const env = { HOME: scratch, URL: origin.url };
  return own(Promise.resolve(new Terminal([process.execPath, ...args], env)));
}

const policyRun = (command: readonly string[]): Promise<Terminal> =>
  run(["--policy", policyFile(), "--allow-ip", "127.0.0.0/8"], command);

/** Sends each of the bodies, one after the other, and prints the status. */
const sends = (...bodies: readonly string[]): readonly string[] => [
  "sh",
  "-c",
  bodies
    .map(
      (body) =>
        `curl -s --noproxy '' -o /dev/null -w '<%{http_code}>\\n' -d '${body}' "$URL/pay"; `,
    )
    .join(""),
];

const word = async (terminal: Terminal): Promise<string> => {
  const [, found = ""] = await terminal.seen(
    / {2}([A-Z2-9]{4}) {6}to allow it once[^?]*approve\? /,
  );
  return found;
};

describe.skipIf(!hasTerminal)("a question in the terminal", () => {
  test("once, for the run, for a time, with the policy line, and no", async () => {
    const terminal = await policyRun(
      sends("a=once", "a=once", "a=run", "a=run", "a=time", "a=time", "a=line", "a=no", "a=no"),
    );
    expect((await terminal.seen(/request {4}(.+?)\r/))[1]).toBe(`POST ${origin.url}/pay`);
    terminal.type(`${await word(terminal)}\r`);
    await terminal.seen(/allowed \(once[^<]*<200>/);
    // The same request is another question.
    terminal.type(`${(await word(terminal)).toLowerCase()}\r`);
    await terminal.seen(/<200>/);
    terminal.type(`${await word(terminal)} s\r`);
    await terminal.seen(/allowed \(session[^<]*<200>\s*<200>/);
    terminal.type(`${await word(terminal)} 15m\r`);
    await terminal.seen(/allowed \(duration[^<]*<200>\s*<200>/);
    terminal.type(`${await word(terminal)} p\r`);
    await terminal.seen(/allowed \(policy[^<]*nothing to add[^<]*<200>/);
    await word(terminal);
    terminal.type("no not today\r");
    // A refusal stands.
    await terminal.seen(/refused[^<]*<403>\s*<403>/);
    expect(await terminal.ended).toBe(0);
    expect(served.map((line) => line.replace("/pay a=", ""))).toEqual([
      "once",
      "once",
      "run",
      "run",
      "time",
      "time",
      "line",
    ]);
  }, 60_000);

  test("a command that writes to its terminal, or into its keyboard, does not answer", async () => {
    // Whatever the system lets a process put into its terminal's input, it is no decision.
    const guess = `
import fcntl, os, termios, time
tty = os.open("/dev/tty", os.O_RDWR)
if os.fork() == 0:
    os.setpgrp()
    if os.fork() > 0: os._exit(0)
    for word in ("yes", "allow", "y", "AAAA", "AAAA s", "ZZZZ", "2222"):
        time.sleep(0.05)
        for key in word + "\\r":
            try: fcntl.ioctl(tty, termios.TIOCSTI, key.encode())
            except OSError: pass
        os.write(tty, b"allow\\r\\n")
    os._exit(0)
os.execvp("curl", ["curl", "-s", "--noproxy", "", "-o", "/dev/null", "-w", "<%{http_code}>", "-d", "a=1", os.environ["URL"] + "/pay"])
`;
    const terminal = await policyRun(["python3", "-c", guess]);
    await word(terminal);
    terminal.type("no\r");
    await terminal.seen(/<403>/);
    expect(served).toEqual([]);
  });

  test("who guesses the word is refused, and keys that were meant for the command are none", async () => {
    const terminal = await policyRun(sends("a=1"));
    await word(terminal);
    for (const line of ["yes", "", "allow"]) {
      terminal.type(`\u001b[A`);
      terminal.type(`${line}\r`);
      await terminal.seen(/type [A-Z2-9]{4}, or no[^?]*approve\? /);
    }
    terminal.type("1111 s\r");
    await terminal.seen(/the word was wrong too often[^<]*<403>/);
    expect(served).toEqual([]);
  });

  test("nothing that the command chose moves or hides what is shown", async () => {
    const hostile = "\u001b[2J\u009b31m\u202e\u200bevil\u0007\u{e0041}\r\nx";
    const argument = JSON.stringify({
      jsonrpc: "2.0",
      id: 1,
      method: "tools/call",
      params: { name: "pay", arguments: { to: hostile } },
    });
    writeFileSync(join(scratch, "call.json"), argument);
    const rules = [{ name: "all", effect: "ask", tools: ["pay"] }];
    const tools = { name: "tool-policy", config: { servers: [{ name: "all", rules }] } };
    const config = configFile("mcp.yaml", ["mcp-parser", tools]);
    const terminal = await run(
      ["--config", config],
      [
        "sh",
        "-c",
        `curl -s --noproxy '' -o /dev/null -w '<%{http_code}>' -H 'Content-Type: application/json' -d @${join(scratch, "call.json")} "$URL/mcp"`,
      ],
    );
    await word(terminal);
    const shown = Buffer.from(terminal.text, "latin1").toString();
    const [, question = ""] = /an approval is needed([^]*)stands still/.exec(shown) ?? [];
    expect(question).toContain(String.raw`\u{202e}\u{200b}evil`);
    expect(question).toContain(String.raw`\u001b[2J\u{9b}31m`);
    expect(question).toContain(String.raw`\u{e0041}`);
    expect(question.replaceAll(/[\r\n]/g, "")).not.toMatch(/[\p{Cc}\u200b\u202e]/u);
    terminal.type("no\r");
    await terminal.seen(/<(?:200|403)>/);
    expect(served).toEqual([]);
  });

  test("a shell that has the terminal to itself is asked about as well, and goes on", async () => {
    const terminal = await policyRun(["bash", "--norc", "--noprofile", "-i"]);
    await terminal.seen(/[#$] /);
    terminal.type(`curl -s --noproxy '' -o /dev/null -w '<%{http_code}>' -d a=1 "$URL/pay"\r`);
    terminal.type(`${await word(terminal)}\r`);
    await terminal.seen(/<200>/);
    terminal.type("echo it is $((1 + 1))\r");
    await terminal.seen(/it is 2/);
    expect(terminal.text).not.toContain("Stopped");
    terminal.type("exit\r");
    expect(await terminal.ended).toBe(0);
  });

  test("what is decided elsewhere is no question any more", async () => {
    const terminal = await run(["--config", withSecret()], sends("a=1", "a=2"));
    const [, id = "", port = ""] = await terminal.seen(
      /approve (\S+) allow --url http:\/\/127.0.0.1:(\d+)/,
    );
    const operator = new Approver(
      { address: () => ({ host: "127.0.0.1", port: Number(port) }) },
      "operator-secret",
    );
    expect((await operator.allow(id)).status).toBe(200);
    await terminal.seen(/operator has decided[^<]*<200>/);
    const [, next = ""] = await terminal.seen(/approve (\S+) allow --url/);
    await terminal.seen(/approve\? /);
    terminal.type("later\r");
    await terminal.seen(/goes on waiting/);
    expect((await operator.deny(next)).status).toBe(200);
    await terminal.seen(/<403>/);
    expect(await terminal.ended).toBe(0);
  });

  test.skipIf(enclosureProblem() !== undefined)(
    "behind the walls of --enforce as well, where the secret of others is not to be read",
    async () => {
      const [, , script = ""] = sends("a=1");
      const terminal = await run(
        ["--enforce", "--config", withSecret()],
        ["sh", "-c", `echo "[$(cat ${secretFile})]"; ${script}`],
      );
      // With it the command could approve its own requests.
      await terminal.seen(/\[\]/);
      terminal.type(`${await word(terminal)}\r`);
      await terminal.seen(/<200>/);
      expect(await terminal.ended).toBe(0);
    },
  );

  test.skipIf(enclosureProblem() !== undefined)(
    "of a connection that was captured from a command that knows no proxy",
    async () => {
      const plugin = { name: "egress-policy", config: { network_policies: policies() } };
      const config = configFile("captured.yaml", [plugin], {
        tls_bridge: { mode: "enabled", ports: [origin.port], ca_dir: scratch, generate_ca: true },
      });
      const terminal = await run(
        ["--enforce", "--config", config],
        ["sh", "-c", `curl -s --noproxy '*' -o /dev/null -w '<%{http_code}>' -d a=1 "$URL/pay"`],
      );
      expect((await terminal.seen(/request {4}(.+?)\r/))[1]).toBe(`POST ${origin.url}/pay`);
      expect(served).toEqual([]);
      terminal.type(`${await word(terminal)}\r`);
      await terminal.seen(/<200>/);
    },
  );
});

test("without a terminal nobody can be asked, and the refusal says so", async () => {
  const ended = await runProgram([
    "run",
    "--policy",
    policyFile(),
    "--allow-ip",
    "127.0.0.0/8",
    "--",
    "curl",
    "-s",
    "--noproxy",
    "",
    "-d",
    "a=1",
    `${origin.url}/pay`,
  ]);
  expect(ended.stdout).toContain("nobody can give it");
  expect(served).toEqual([]);
});
