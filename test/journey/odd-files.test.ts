/** Something else in place of a file that a configuration or a command line names: its name is in the answer, and the answer comes. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, onTestFinished, test } from "vitest";
import { runProgram, runWith, type Settings, toYaml } from "../support/program.ts";
import { merge, outbound, settings } from "../support/proxy.ts";

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), "odd-files-"));
  onTestFinished(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

function pipe(): string {
  const path = join(folder(), "pipe");
  execFileSync("mkfifo", [path]);
  return path;
}

const forward = settings();
const exchange = { token_url: "http://127.0.0.1:9/token", identity: { type: "client-secret" } };

test.each<[string, (file: string) => Settings]>([
  [
    "listener.forward_proxy_tls.cert_file",
    (file) => ({ listener: { forward_proxy_tls: { cert_file: file, key_file: file } } }),
  ],
  [
    "tls_bridge.upstream_ca_bundle",
    (file) => ({ tls_bridge: { mode: "enabled", ca: "ephemeral", upstream_ca_bundle: file } }),
  ],
  [
    "upstream_proxy.https_proxy.password_file",
    (file) => ({
      upstream_proxy: {
        https_proxy: { url: "http://127.0.0.1:9", username: "u", password_file: file },
      },
    }),
  ],
  ["upstream_proxy.trusted_ca", (file) => ({ upstream_proxy: { trusted_ca: file } })],
  [
    "upstream_proxy.from_openshift",
    (file) => ({ upstream_proxy: { from_openshift: { path: file } } }),
  ],
  [
    "state.ca_file",
    (file) => ({ state: { store: "redis", url: "rediss://127.0.0.1:9", ca_file: file } }),
  ],
  [
    "pipeline.outbound.plugins[0]",
    (file) => outbound({ name: "token-exchange", config: { ...exchange, routes: { file } } }),
  ],
  [
    "pipeline.outbound.plugins[0]",
    (file) => outbound({ name: "egress-policy", config: { policy_file: file } }),
  ],
  ["plugin_modules", (file) => ({ plugin_modules: [file] })],
])("a pipe for %s is refused at once", async (key, naming) => {
  const file = pipe();
  const { code, stderr } = await runWith("run", merge(forward, naming(file)));
  const line = stderr.split("\n").find((one) => one.includes(key));
  expect(line, stderr).toContain("not a regular file");
  expect([1, 2]).toContain(code);
});

const log = ["verify-audit", "log"];
const api = ["--url", "http://127.0.0.1:9", "--secret-file"];

test.each<[code: number, args: readonly string[]]>([
  [2, ["--config"]],
  [2, ["health", "--config"]],
  [2, ["run", "--learn", "odd", "--", "true"]],
  [2, ["policy", "test", "odd/none"]],
  [2, ["policy", "suggest", "--config", "proxy.yaml", "--from"]],
  [2, ["policy", "learn", "--config", "proxy.yaml", "--from"]],
  [2, ["policy", "learn", "--config", "proxy.yaml", "--from", "log", "--out"]],
  [2, ["tail", ...api]],
  [2, ["approve", ...api]],
  [1, ["verify-audit"]],
  [1, [...log, "--key"]],
  [1, [...log, "--checkpoint"]],
  [1, ["audit", "proof", "1"]],
  [1, ["audit", "consistency", "odd/none", "--from", "1", "--to", "2"]],
  [1, ["audit", "export", "odd/none", "--format", "ocsf"]],
])("a directory or nothing at all is named: exit code %i of %j", async (code, args) => {
  const cwd = folder();
  mkdirSync(join(cwd, "odd"));
  writeFileSync(join(cwd, "log"), "");
  writeFileSync(join(cwd, "proxy.yaml"), toYaml(forward));
  const line = args.some((arg) => arg.startsWith("odd")) ? args : [...args, "odd"];
  const ended = await runProgram(line, { cwd });
  expect(ended.stderr).toMatch(
    /^(?:authbridge-proxy: )?odd\S* cannot be read: (?:it is |there is no )/,
  );
  expect(ended.stderr).not.toMatch(/\n {4}at |E[A-Z]{4,}:/);
  expect(ended).toMatchObject({ code, stdout: "" });
});

test.each(["tail", "approve"])("%s names the file of a secret that is none", async (command) => {
  const cwd = folder();
  writeFileSync(join(cwd, "secret"), "one\ntwo\n");
  const { code, stderr } = await runProgram([command, ...api, "secret"], { cwd });
  expect(stderr).toMatch(/^authbridge-proxy: secret holds no secret of the session API/);
  expect(code).toBe(2);
});
