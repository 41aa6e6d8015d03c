/** What the command line asks for. */
import { parseArgs } from "node:util";
import { parseDuration } from "../../duration.ts";
import { messageOf } from "../../errors.ts";
import { isPolicyCommand, parsePolicyCommand, type PolicyCommand } from "./policy-command-line.ts";
import { tailCommand, type TailCommand, type VerifyAuditCommand } from "./record-arguments.ts";

/** A file and how strictly to read it. */
export interface FileCommand {
  readonly file: string;
  readonly lenient: boolean;
}

/** `run` and `check`: whether readiness endpoints of upstream_proxy are asked. */
export interface ServeCommand extends FileCommand {
  readonly probe?: "always" | "never";
}

/** `ca`: the certificate that clients trust, or what identifies it. */
export interface CaCommand extends FileCommand {
  readonly fingerprint: boolean;
}

/** The ways in which `env` can write variables. */
export const environmentFormats = ["shell", "dotenv", "kubernetes"] as const;

/** One of {@link environmentFormats}. */
export type EnvironmentFormat = (typeof environmentFormats)[number];

/** `env`: the variables that make clients use and trust the proxy. */
export interface EnvCommand extends FileCommand {
  readonly format: EnvironmentFormat;
  /** The proxy as clients reach it; from the file when absent. */
  readonly proxy?: string;
  /** Where clients find ca.crt; in `ca_dir` when absent. */
  readonly caFile?: string;
  /** Where the merged bundle is written; in `ca_dir` when absent. */
  readonly bundleFile?: string;
}

/** `doctor`: what works and what does not. */
export interface DoctorCommand extends FileCommand {
  /** A command to run through the proxy; empty for none. */
  readonly command: readonly string[];
  /** How long it may run. */
  readonly timeoutMs: number;
  /** A file with a token: nothing else is looked at then. */
  readonly tokenFile?: string;
}

/** `run -- COMMAND`: a command behind a proxy that lives as long as the command. */
export interface RunCommand {
  /** The file whose outbound pipeline is in force; without one, a file of our own. */
  readonly file?: string;
  readonly lenient: boolean;
  /** A policy file in the OpenShell format, in place of a configuration. */
  readonly policyFile?: string;
  /** Where the smallest policy that lets the run through is written. */
  readonly learnFile?: string;
  readonly command: readonly string[];
}

/** The places for which `init` has a starter file. */
export const starters = ["local", "sidecar", "gateway"] as const;

/** One of {@link starters}. */
export type Starter = (typeof starters)[number];

/** `init`: a commented file to begin with. */
export interface InitCommand {
  readonly starter: Starter;
  /** Where it is written. */
  readonly file: string;
}

/** `--demo`: a proxy for one developer's machine. */
export interface DemoCommand {
  readonly caDir: string;
}

/** One parsed command line. */
export type Command =
  | ({ readonly kind: "run" | "check" } & ServeCommand)
  | ({ readonly kind: "ca" } & CaCommand)
  | ({ readonly kind: "env" } & EnvCommand)
  | ({ readonly kind: "doctor" } & DoctorCommand)
  | ({ readonly kind: "run-command" } & RunCommand)
  | ({ readonly kind: "init" } & InitCommand)
  | ({ readonly kind: "tail" } & TailCommand)
  | ({ readonly kind: "verify-audit" } & VerifyAuditCommand)
  | ({ readonly kind: "demo" } & DemoCommand)
  | PolicyCommand
  | { readonly kind: "schema" | "version" | "help" }
  | { readonly kind: "usage-error"; readonly message: string };

const options = {
  config: { type: "string" },
  lenient: { type: "boolean" },
  version: { type: "boolean" },
  help: { type: "boolean", short: "h" },
  demo: { type: "boolean" },
  "ca-dir": { type: "string" },
  fingerprint: { type: "boolean" },
  probe: { type: "string" },
  format: { type: "string" },
  proxy: { type: "string" },
  "ca-file": { type: "string" },
  "bundle-file": { type: "string" },
  timeout: { type: "string" },
  token: { type: "string" },
  policy: { type: "string" },
  learn: { type: "string" },
  local: { type: "boolean" },
  sidecar: { type: "boolean" },
  gateway: { type: "boolean" },
  url: { type: "string" },
  session: { type: "string" },
  host: { type: "string" },
  decision: { type: "string" },
  plugin: { type: "string" },
  json: { type: "boolean" },
  "secret-file": { type: "string" },
  limit: { type: "string" },
} as const;

type OptionName = keyof typeof options;
type Values = ReturnType<typeof parseArgs<{ options: typeof options }>>["values"];

/** What each command understands; an option of another command is a mistake, never ignored. */
const optionsOf = {
  run: ["config", "lenient", "probe"],
  "run-command": ["config", "lenient", "policy", "learn"],
  init: ["config", "local", "sidecar", "gateway"],
  demo: ["demo", "ca-dir"],
  check: ["config", "lenient", "probe"],
  ca: ["config", "lenient", "fingerprint"],
  env: ["config", "lenient", "format", "proxy", "ca-file", "bundle-file"],
  doctor: ["config", "lenient", "timeout", "token"],
  tail: [
    "config",
    "lenient",
    "url",
    "session",
    "host",
    "decision",
    "plugin",
    "json",
    "secret-file",
    "limit",
  ],
  "verify-audit": [],
  schema: [],
} as const satisfies Record<string, readonly OptionName[]>;

type CommandName = keyof typeof optionsOf;

const defaultFile = "authbridge.yaml";
const defaultCaDir = "./cortex-ca";
const defaultTimeout = "60s";
const maxTimeoutMs = 24 * 3_600_000;

/** Never throws. */
export function parseCommand(argv: readonly string[]): Command {
  if (isPolicyCommand(argv)) return parsePolicyCommand(argv);
  const end = argv.indexOf("--");
  const before = end === -1 ? argv : argv.slice(0, end);
  const own = before.map((arg) => (arg === "--probe" ? "--probe=always" : arg));
  const rest = end === -1 ? [] : argv.slice(end + 1);
  let parsed;
  try {
    parsed = parseArgs({ args: [...own], allowPositionals: true, options });
  } catch (error) {
    return usageError(messageOf(error));
  }
  const { values, positionals } = parsed;
  if (values.help === true) return { kind: "help" };
  if (values.version === true) return { kind: "version" };
  const [written, ...files] = positionals;
  const [extra] = files;
  if (extra !== undefined && written !== "verify-audit")
    return usageError(`unexpected argument "${extra}"`);
  const name = nameOf(written, values, end !== -1);
  if (typeof name !== "string") return name;
  if (end !== -1 && name !== "doctor" && name !== "run-command")
    return usageError("only run and doctor run a command after --");
  const foreign = foreignOption(name, values);
  if (foreign !== undefined) return usageError(`--${foreign} does not belong to ${titles[name]}`);
  if (name === "schema") return { kind: name };
  if (name === "demo") return demoCommand(values);
  if (name === "init") return initCommand(values);
  if (name === "tail" || name === "verify-audit") return recordCommand(name, values, files);
  if (name === "run-command") return runCommand(values, rest);
  return fileCommand(name, values, rest);
}

const titles: Readonly<Record<CommandName, string>> = {
  run: "a plain start",
  "run-command": "run --",
  init: "init",
  demo: "--demo",
  check: "check",
  ca: "ca",
  env: "env",
  doctor: "doctor",
  tail: "tail",
  "verify-audit": "verify-audit",
  schema: "schema",
};

function nameOf(
  written: string | undefined,
  values: Values,
  hasCommand: boolean,
): CommandName | Command {
  if (values.demo === true) {
    if (values.config !== undefined)
      return usageError("--demo writes its own configuration: it cannot be used with --config");
    return written === undefined ? "demo" : usageError(`--demo does not belong to ${written}`);
  }
  if (values["ca-dir"] !== undefined) return usageError("--ca-dir is used with --demo only");
  if (written === "run" && hasCommand) return "run-command";
  const name = written ?? "run";
  if (name === "demo" || name === "run-command" || !Object.hasOwn(optionsOf, name))
    return usageError(`unknown command "${name}"`);
  return name as CommandName;
}

function foreignOption(name: CommandName, values: Values): string | undefined {
  const known: readonly string[] = optionsOf[name];
  return Object.keys(values).find((option) => !known.includes(option));
}

function demoCommand(values: Values): Command {
  const caDir = values["ca-dir"] ?? defaultCaDir;
  return caDir === "" ? usageError("--ca-dir must not be empty") : { kind: "demo", caDir };
}

function initCommand(values: Values): Command {
  const asked = starters.filter((starter) => values[starter] === true);
  const [starter = "local", other] = asked;
  if (other !== undefined) return usageError(`--${starter} and --${other} exclude each other`);
  const { config: file = defaultFile } = values;
  return file === "" ? usageError("--config must not be empty") : { kind: "init", starter, file };
}

function recordCommand(
  kind: "tail" | "verify-audit",
  values: Values,
  files: readonly string[],
): Command {
  if (kind === "verify-audit")
    return files.length === 0
      ? usageError("verify-audit needs the files of a decision log")
      : { kind, files };
  const asked = tailCommand(values);
  return typeof asked === "string" ? usageError(asked) : { kind, ...asked };
}

function runCommand(values: Values, command: readonly string[]): Command {
  const { config: file, policy: policyFile, learn: learnFile, lenient = false } = values;
  if (command.length === 0) return usageError("run needs a command after --");
  if (file !== undefined && policyFile !== undefined)
    return usageError("--policy and --config exclude each other: name the policy in the file");
  if ([file, policyFile, learnFile].includes(""))
    return usageError("--config, --policy and --learn must not be empty");
  return {
    kind: "run-command",
    lenient,
    command,
    ...(file === undefined ? {} : { file }),
    ...(policyFile === undefined ? {} : { policyFile }),
    ...(learnFile === undefined ? {} : { learnFile }),
  };
}

function fileCommand(
  name: Exclude<CommandName, "demo" | "init" | "run-command" | "schema" | "tail" | "verify-audit">,
  values: Values,
  rest: readonly string[],
): Command {
  if (values.config === undefined || values.config === "") {
    const hint = name === "run" ? " (or use --demo for the local demo, or run -- COMMAND)" : "";
    return usageError(`--config is required${hint}`);
  }
  const file: FileCommand = { file: values.config, lenient: values.lenient ?? false };
  switch (name) {
    case "run":
    case "check":
      return serveCommand(name, file, values);
    case "ca":
      return { kind: name, ...file, fingerprint: values.fingerprint ?? false };
    case "env":
      return envCommand(file, values);
    case "doctor":
      return doctorCommand(file, values, rest);
  }
}

function serveCommand(kind: "run" | "check", file: FileCommand, { probe }: Values): Command {
  if (probe === undefined) return { kind, ...file };
  if (probe !== "always" && probe !== "never") return usageError("--probe takes always or never");
  return { kind, ...file, probe };
}

function envCommand(file: FileCommand, values: Values): Command {
  const { format = "shell", proxy, "ca-file": caFile, "bundle-file": bundleFile } = values;
  if (!isFormat(format))
    return usageError(`--format must be one of ${environmentFormats.join(", ")}`);
  if (caFile === "" || bundleFile === "")
    return usageError("--ca-file and --bundle-file must not be empty");
  return {
    kind: "env",
    ...file,
    format,
    ...(proxy === undefined ? {} : { proxy }),
    ...(caFile === undefined ? {} : { caFile }),
    ...(bundleFile === undefined ? {} : { bundleFile }),
  };
}

function doctorCommand(file: FileCommand, values: Values, rest: readonly string[]): Command {
  const timeoutMs = parseDuration(values.timeout ?? defaultTimeout);
  if (timeoutMs === undefined || timeoutMs <= 0 || timeoutMs > maxTimeoutMs)
    return usageError('--timeout must be a duration such as "30s" or "5m", at most 24h');
  const { token: tokenFile } = values;
  if (tokenFile === "") return usageError("--token must not be empty");
  if (tokenFile === undefined) return { kind: "doctor", ...file, command: rest, timeoutMs };
  if (rest.length > 0) return usageError("doctor explains a token or runs a command, not both");
  return { kind: "doctor", ...file, command: rest, timeoutMs, tokenFile };
}

function isFormat(text: string): text is EnvironmentFormat {
  return (environmentFormats as readonly string[]).includes(text);
}

function usageError(message: string): Command {
  return { kind: "usage-error", message };
}
