/** `run -- COMMAND`: runs a command behind a proxy that ends with it, and prints what the command tried to reach. */
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { constants, tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { LoadedConfig } from "../config/load.ts";
import { messageOf } from "../errors.ts";
import { builtinPlugins } from "../plugins/index.ts";
import { type CommandEnding, runCommand } from "./child-process.ts";
import { clientEnvironment, type TrustFiles } from "./client-environment.ts";
import { commandFile, refuseCommand } from "./config-file.ts";
import { SignalCleanup } from "./signal-cleanup.ts";
import { LearnedPolicy } from "./learned-policy.ts";
import { OwnInstance } from "./own-instance.ts";
import { type ProbeFile, writeProbeFile } from "./own-file.ts";
import { proxyUrl } from "./proxy-address.ts";
import { runConfigOf, runConfigText } from "./run-config.ts";
import { TrafficSummary } from "./traffic-summary.ts";
import { writeTrustBundle } from "../app/trust/bundle.ts";

interface RunCommand {
  /** The file whose outbound pipeline is in force; without one, a file of our own. */
  readonly file?: string;
  readonly lenient: boolean;
  /** A policy file in the OpenShell format, in place of a configuration. */
  readonly policyFile?: string;
  /** Where the smallest policy that lets the run through is written. */
  readonly learnFile?: string;
  readonly command: readonly string[];
}

/** A file that is ready to be served. */
interface Prepared {
  readonly probe: ProbeFile;
  readonly isBridged: boolean;
}

/** Resolves with the exit code of the command, 128 and its signal, or 2 where no proxy could be started for it. */
export async function runBehindProxy(command: RunCommand): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), "authbridge-run-"));
  const cleanup = new SignalCleanup(directory);
  try {
    const prepared = await prepare(command, directory);
    if (typeof prepared === "number") return prepared;
    return await serveCommand(command, prepared, { directory, cleanup });
  } finally {
    await rm(directory, { recursive: true, force: true });
    cleanup.close();
  }
}

/** An exit code where the operator's file cannot be used. */
async function prepare(command: RunCommand, directory: string): Promise<Prepared | number> {
  const { file, lenient, policyFile, learnFile } = command;
  // The content of an existing file would be lost; it is refused before the command runs.
  if (learnFile !== undefined && existsSync(learnFile))
    return refuseCommand(`--learn: ${learnFile} is there already: remove it, or name another file`);
  if (file === undefined) {
    const path = join(directory, "run.yaml");
    const policy = policyFile === undefined ? undefined : resolve(policyFile);
    const terms = { directory, policyFile: policy, definitions: builtinPlugins };
    await writeFile(path, runConfigText(terms), { mode: 0o600 });
    return { probe: { file: path, env: {} }, isBridged: true };
  }
  const loaded = await commandFile({ file, lenient });
  if (loaded === undefined) return 2;
  const objection = objectionTo(loaded);
  if (objection !== undefined) return refuseCommand(objection);
  if (loaded.config.listener.reverse_proxy_addr !== undefined)
    note("only the forward proxy of the file is opened; its reverse proxy is not");
  const config = runConfigOf(loaded, directory);
  const probe = await writeProbeFile(directory, "run", config);
  return { probe, isBridged: config.tls_bridge.mode === "enabled" };
}

function objectionTo({ config }: LoadedConfig): string | undefined {
  if (config.listener.forward_proxy_addr === undefined)
    return "the file opens no forward proxy: add the role forward to listener.roles";
  if (config.callers !== undefined)
    return "the file tells its agents apart (callers), and COMMAND is none of them: use a file without that block";
  return undefined;
}

async function serveCommand(
  { command, learnFile }: RunCommand,
  { probe, isBridged }: Prepared,
  { directory, cleanup }: { readonly directory: string; readonly cleanup: SignalCleanup },
): Promise<number> {
  const traffic = new TrafficSummary();
  const learned = new LearnedPolicy();
  let instance: OwnInstance;
  try {
    instance = await OwnInstance.start(probe, (line) => {
      traffic.hear(line);
      learned.hear(line);
    });
  } catch (error) {
    refuseCommand(new Error(`the proxy does not start: ${messageOf(error)}`));
    return 2;
  }
  const [name = ""] = command;
  let ending: CommandEnding;
  try {
    const { forward, sessions } = instance.addresses;
    if (forward === undefined) return refuseCommand("the proxy opened no forward listener");
    const watch = sessions === undefined ? "" : `; watch it at ${proxyUrl(sessions)}/`;
    note(`${name} runs behind ${proxyUrl(forward)}${watch}`);
    const missing = instance.readiness();
    if (missing !== undefined) note(`the proxy is not ready: ${missing.trim()}`);
    const trust = isBridged ? await trustFiles(directory) : undefined;
    const env = { ...process.env, ...Object.fromEntries(clientEnvironment(forward, trust)) };
    ending = await cleanup.suspendedDuring(() =>
      runCommand({ command, env, passSignals: passedSignals() }),
    );
  } finally {
    // The last flows end with the process that made them; they are logged when the instance is closed.
    await instance.close();
  }
  note(`what ${name} tried to reach:\n${traffic.toString().trimEnd()}`);
  const isTold = await tellPolicy(learned.text(), learnFile);
  return exitCodeOf(ending, name) || (isTold ? 0 : 1);
}

/** Ready to be pasted: no line of it is indented or has a name in front. False where it could not be written. */
async function tellPolicy(policy: string | undefined, file: string | undefined): Promise<boolean> {
  if (policy === undefined) {
    if (file !== undefined) note("--learn: there is nothing to learn, no file was written");
    return true;
  }
  const how = file === undefined ? "--learn FILE writes it" : `as written to ${file}`;
  note(
    `the smallest policy that lets this through (${how}; run --policy FILE holds to it):\n${policy.trimEnd()}`,
  );
  if (file === undefined) return true;
  try {
    await writeFile(file, policy, { flag: "wx", mode: 0o644 });
    return true;
  } catch (error) {
    note(`--learn: ${file} cannot be written: ${messageOf(error)}`);
    return false;
  }
}

async function trustFiles(directory: string): Promise<TrustFiles> {
  const caFile = join(directory, "ca", "ca.crt");
  const bundleFile = join(directory, "ca", "ca-bundle.crt");
  const { javaStoreFile } = await writeTrustBundle(bundleFile, await readFile(caFile, "utf8"));
  return { caFile, bundleFile, javaStoreFile };
}

/** What a terminal sends by key reaches the whole group: passed on as well, the command would see it twice. */
function passedSignals(): NodeJS.Signals[] {
  const always: NodeJS.Signals[] = ["SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2"];
  const hasTerminal = process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY;
  return hasTerminal ? always : [...always, "SIGINT", "SIGQUIT"];
}

/** As shells have it (POSIX.1-2024, 2.8.2): 128 and the signal, 127 for what is not there, 126 for what cannot be run. */
function exitCodeOf(ending: CommandEnding, name: string): number {
  switch (ending.kind) {
    case "exited":
      return ending.code;
    case "killed":
      return 128 + constants.signals[ending.signal];
    case "timed-out":
      return 1;
    case "not-started":
      note(`${name} cannot be run: ${ending.code}`);
      return ending.code === "ENOENT" ? 127 : 126;
  }
}

function note(text: string): void {
  process.stderr.write(`authbridge-proxy: ${text}\n`);
}
