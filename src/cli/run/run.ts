/** `run -- COMMAND`: runs a command behind a proxy that ends with it, and prints what the command tried to reach. */
import { readFile, writeFile } from "node:fs/promises";
import { constants } from "node:os";
import { join, resolve } from "node:path";
import { secretFilesOf } from "../../app/approvals/operators.ts";
import type { LoadedConfig } from "../../config/load.ts";
import { messageOf } from "../../errors.ts";
import { builtinPlugins } from "../../plugins/index.ts";
import { type CommandEnding } from "../child-process.ts";
import { clientEnvironment, type TrustFiles } from "../client-environment.ts";
import { commandFile, refuseCommand } from "../config-file.ts";
import { invocation } from "../invocation.ts";
import { RefusedPolicy } from "./refused-policy.ts";
import { OwnInstance } from "../own-instance.ts";
import { type ProbeFile, writeProbeFile } from "../own-file.ts";
import { proxyUrl } from "../proxy-address.ts";
import {
  eventFile,
  learningConfig,
  runConfigOf,
  runConfigText,
  withExceptions,
} from "./run-config.ts";
import { hearFile } from "../learn/event-source.ts";
import { learn, policyFileText, writePolicyFile } from "../learn/learn.ts";
import { ObservedTraffic } from "../learn/observed-traffic.ts";
import { askOnTerminal } from "../learn/review.ts";
import { type Enclosure, enclosure, open } from "./enclosure.ts";
import type { CommandRoot } from "./standstill.ts";
import { TerminalAttendant } from "./terminal-attendant.ts";
import { TemporaryDirectory } from "../temporary-directory.ts";
import { TrafficSummary } from "../traffic-summary.ts";
import { defaultBridgedPorts } from "../../tlsbridge/interception.ts";
import { writeTrustBundle } from "../../app/trust/bundle.ts";

interface RunCommand {
  /** The file whose outbound pipeline is in force; without one, a file of our own. */
  readonly file?: string;
  readonly lenient: boolean;
  /** A policy file in the OpenShell format, in place of a configuration. */
  readonly policyFile?: string;
  /** The policy file that is made, or added to, so that it lets the run through; nothing is refused meanwhile. */
  readonly learnFile?: string;
  /** Whether each learned rule is asked about. */
  readonly review?: boolean;
  /** Hosts and addresses that are open besides. */
  readonly allow?: readonly string[];
  readonly allowIps?: readonly string[];
  /** Whether the command has no way out but the proxy. */
  readonly enforce?: boolean;
  readonly command: readonly string[];
}

/** A file that is ready to be served. */
interface Prepared {
  readonly probe: ProbeFile;
  readonly isBridged: boolean;
  readonly bridgedPorts: readonly number[];
  /** With what is in them the command could approve its own requests. */
  readonly secretFiles: readonly string[];
}

/** Resolves with the exit code of the command, 128 and its signal, or 2 where no proxy could be started for it. */
export async function runBehindProxy(command: RunCommand): Promise<number> {
  const temporary = await TemporaryDirectory.make("authbridge-run-");
  try {
    const prepared = await prepare(command, temporary.path);
    if (typeof prepared === "number") return prepared;
    const place = command.enforce === true ? await enclosure(process.platform) : open;
    if (typeof place === "string") return refuseCommand(`--enforce: ${place}`);
    try {
      return await serveCommand(command, prepared, { temporary, enclosure: place });
    } finally {
      place.close();
    }
  } catch (error) {
    return refuseCommand(error);
  } finally {
    await temporary.close();
  }
}

/** An exit code where the operator's file cannot be used. */
async function prepare(command: RunCommand, directory: string): Promise<Prepared | number> {
  const { file, lenient, policyFile, learnFile, allow = [], allowIps = [] } = command;
  const exceptions = { allow, allowIps };
  const learns = learnFile !== undefined;
  if (learns) {
    try {
      // A file that cannot be added to is refused before the command runs.
      await policyFileText(learnFile);
    } catch (error) {
      return refuseCommand(error);
    }
  }
  if (file === undefined) {
    const path = join(directory, "run.yaml");
    const policy = policyFile === undefined ? undefined : resolve(policyFile);
    const definitions = builtinPlugins;
    const terms = { directory, policyFile: policy, learns, exceptions, definitions };
    await writeFile(path, runConfigText(terms), { mode: 0o600 });
    const bridgedPorts = defaultBridgedPorts;
    return { probe: { file: path, env: {} }, isBridged: true, bridgedPorts, secretFiles: [] };
  }
  const loaded = await commandFile({ file, lenient });
  if (loaded === undefined) return 2;
  const objection = objectionTo(loaded);
  if (objection !== undefined) return refuseCommand(objection);
  if (loaded.config.listener.reverse_proxy_addr !== undefined)
    note("only the forward proxy of the file is opened; its reverse proxy is not");
  const own = withExceptions(runConfigOf(loaded, directory), exceptions);
  if (typeof own === "string") return refuseCommand(own);
  const config = learns ? learningConfig(own, directory, builtinPlugins) : own;
  const probe = await writeProbeFile(directory, "run", config);
  const { mode, ports: bridgedPorts } = config.tls_bridge;
  const secretFiles = secretFilesOf(loaded.config);
  return { probe, isBridged: mode === "enabled", bridgedPorts, secretFiles };
}

function objectionTo({ config }: LoadedConfig): string | undefined {
  if (config.listener.forward_proxy_addr === undefined)
    return "the file opens no forward proxy: add the role forward to listener.roles";
  if (config.callers !== undefined)
    return "the file tells its agents apart (callers), and COMMAND is none of them: use a file without that block";
  return undefined;
}

interface Place {
  readonly temporary: TemporaryDirectory;
  readonly enclosure: Enclosure;
}

async function serveCommand(
  run: RunCommand,
  { probe, isBridged, bridgedPorts, secretFiles: hidden }: Prepared,
  { temporary, enclosure: place }: Place,
): Promise<number> {
  const directory = temporary.path;
  const { command } = run;
  const traffic = new TrafficSummary();
  const refused = new RefusedPolicy();
  const [name = ""] = command;
  const attendant = TerminalAttendant.ofProcess(name);
  let instance: OwnInstance;
  try {
    const hear = (line: Readonly<Record<string, unknown>>): void => {
      traffic.hear(line);
      refused.hear(line);
    };
    instance = await OwnInstance.start(probe, hear, {
      agentPid: place.agentPid,
      ...(attendant === undefined ? {} : { attendant }),
    });
  } catch (error) {
    attendant?.close();
    refuseCommand(new Error(`the proxy does not start: ${messageOf(error)}`));
    return 2;
  }
  let ending: CommandEnding;
  try {
    const { forward, sessions } = instance.addresses;
    if (forward === undefined) return refuseCommand("the proxy opened no forward listener");
    const sessionApi = sessions && proxyUrl(sessions);
    const watch = sessionApi === undefined ? "" : `; watch it at ${sessionApi}/`;
    note(`${name} runs behind ${proxyUrl(forward)}${watch}`);
    const missing = instance.readiness();
    if (missing !== undefined) note(`the proxy is not ready: ${missing.trim()}`);
    const trust = isBridged ? await trustFiles(directory) : undefined;
    const env = { ...process.env, ...Object.fromEntries(clientEnvironment(forward, trust)) };
    const passSignals = passedSignals();
    const capturedPorts = [80, ...bridgedPorts];
    const onStarted = (root: CommandRoot): void => attendant?.begin(root, sessionApi);
    const shared = { command, env, passSignals, onStarted, hidden };
    const enclosed = { ...shared, proxyPort: forward.port, capturedPorts };
    ending = await temporary.suspendedDuring(() =>
      place.run(enclosed, (surface, socket) => instance.adopt(surface, socket)),
    );
  } finally {
    attendant?.close();
    // The last flows end with the process that made them; they are logged when the instance is closed.
    await instance.close();
  }
  note(`what ${name} tried to reach:\n${traffic.toString().trimEnd()}`);
  const isDone = run.learnFile === undefined ? tellRefused(refused) : await teach(run, directory);
  return exitCodeOf(ending, name) || (isDone ? 0 : 1);
}

function tellRefused(refused: RefusedPolicy): true {
  const options = refused.options();
  if (options.length > 0) note(`for one run: ${invocation()} run ${options.join(" ")} -- …`);
  const policy = refused.text();
  // Last, and ready to be pasted: no line of it is indented or has a name in front.
  if (policy !== undefined)
    note(`the lines of a policy that would allow what was refused:\n${policy.trimEnd()}`);
  return true;
}

/** False where the file was not written, because it could not be or because the reviewer left. */
async function teach(
  { learnFile: file = "", review = false }: RunCommand,
  directory: string,
): Promise<boolean> {
  const terminal = review ? askOnTerminal() : undefined;
  try {
    const traffic = new ObservedTraffic();
    await hearFile(eventFile(directory), traffic).catch(() => undefined);
    const text = await policyFileText(file);
    const taught = await learn({ traffic, file, text, ask: terminal?.ask });
    for (const line of taught.notes) note(`--learn: ${line}`);
    if (taught.text === undefined) return !review;
    if (taught.text !== text) await writePolicyFile(file, taught.text);
    const how = `as written to ${file}; ${invocation()} run --policy ${file} holds to it`;
    note(`the policy that lets this through (${how}):\n${taught.text.trimEnd()}`);
    return true;
  } catch (error) {
    note(`--learn: ${messageOf(error)}`);
    return false;
  } finally {
    terminal?.close();
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
