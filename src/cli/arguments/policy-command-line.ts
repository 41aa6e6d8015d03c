/** What the commands about policy are asked: `explain`, `policy test`, `policy suggest`. */
import { parseArgs } from "node:util";
import { messageOf } from "../../errors.ts";
import type { ProbeSource } from "./probe-source.ts";

interface FileCommand {
  readonly file: string;
  readonly lenient: boolean;
}

/** `explain`: what would become of one connection or request. */
export interface ExplainCommand extends FileCommand {
  readonly probe: ProbeSource;
  readonly json: boolean;
  /** False leaves DNS alone. */
  readonly resolve: boolean;
}

/** `policy test`: cases from a directory of YAML files. */
export interface PolicyTestCommand {
  readonly directory: string;
  readonly json: boolean;
}

/** `policy suggest`: the smallest addition that would allow what was refused. */
export interface PolicySuggestCommand extends FileCommand {
  /** A saved answer of the session API, `-` for stdin; the running process is asked when absent. */
  readonly from?: string;
  readonly json: boolean;
}

/** One of them, or what is wrong with the command line. */
export type PolicyCommand =
  | ({ readonly kind: "explain" } & ExplainCommand)
  | ({ readonly kind: "policy-test" } & PolicyTestCommand)
  | ({ readonly kind: "policy-suggest" } & PolicySuggestCommand)
  | { readonly kind: "help" }
  | { readonly kind: "usage-error"; readonly message: string };

/** The lines of `--help` about these commands. */
export const policyUsage = {
  commands: `  authbridge-proxy explain --config FILE (--connect HOST:PORT | --url URL) [options]
                                                    what would become of it: who decides, by which entry and rule, at
                                                    which address, and what would be attached; 0 passes, 1 refused
  authbridge-proxy policy test DIRECTORY [--json]   run the YAML cases of a directory and print a table; 1 when one fails
  authbridge-proxy policy suggest --config FILE [--from DENIALS] [--json]
                                                    the smallest addition to the policy that would allow what the
                                                    running proxy refused, with a note on the risk of each line
`,
  options: `  --connect HOST:PORT explain: a CONNECT; with --method, --path, --header or --body also the request in it
  --url URL           explain: a request, through a CONNECT when it is https
  --method, --path    explain: of the request (default GET, /)
  --header "N: v"     explain: a field of the request; may be repeated
  --body TEXT         explain: its body
  --binary PATH       explain: the caller's executable; without it the caller is not identified
  --ancestor PATH     explain: an executable above it, nearest first; may be repeated
  --caller NAME       explain: the authenticated name of the agent
  --no-resolve        explain: ask no resolver
  --from DENIALS      policy suggest: a saved answer of /v1/policy/denials instead of the running proxy (- is stdin)
  --json              explain, policy: JSON instead of text
`,
} as const;

const common = {
  config: { type: "string" },
  lenient: { type: "boolean" },
  json: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

const explainOptions = {
  ...common,
  connect: { type: "string" },
  url: { type: "string" },
  method: { type: "string" },
  path: { type: "string" },
  header: { type: "string", multiple: true },
  body: { type: "string" },
  binary: { type: "string" },
  ancestor: { type: "string", multiple: true },
  caller: { type: "string" },
  "no-resolve": { type: "boolean" },
} as const;

const testOptions = { json: common.json, help: common.help } as const;
const suggestOptions = { ...common, from: { type: "string" } } as const;

/** Whether a command line is one of these. */
export function isPolicyCommand([first]: readonly string[]): boolean {
  return first === "explain" || first === "policy";
}

/** Never throws. */
export function parsePolicyCommand([first, ...rest]: readonly string[]): PolicyCommand {
  try {
    if (first === "explain") return explainCommand(rest);
    const [verb, ...args] = rest;
    if (verb === "test") return testCommand(args);
    if (verb === "suggest") return suggestCommand(args);
    if (verb === "--help" || verb === "-h") return { kind: "help" };
    return usageError("policy needs test or suggest");
  } catch (error) {
    return usageError(messageOf(error));
  }
}

function explainCommand(args: readonly string[]): PolicyCommand {
  const { values } = parseArgs({ args: [...args], options: explainOptions });
  if (values.help === true) return { kind: "help" };
  const {
    config,
    connect,
    url,
    method,
    path,
    header = [],
    body,
    binary,
    ancestor,
    caller,
  } = values;
  if (!config) return usageError("--config is required");
  if ((connect === undefined) === (url === undefined))
    return usageError("explain needs --connect HOST:PORT or --url URL");
  const headers: [name: string, value: string][] = [];
  for (const field of header) {
    const colon = field.indexOf(":");
    if (colon < 1) return usageError('--header must be "Name: value"');
    headers.push([field.slice(0, colon).trim(), field.slice(colon + 1).trim()]);
  }
  const written = { connect, url, method, path, body, binary, ancestors: ancestor, caller };
  const probe: ProbeSource = {
    ...(Object.fromEntries(
      Object.entries(written).filter(([, value]) => value !== undefined),
    ) as ProbeSource),
    ...(header.length === 0 ? {} : { headers }),
  };
  const { lenient = false, json = false, "no-resolve": isOffline = false } = values;
  return { kind: "explain", file: config, lenient, probe, json, resolve: !isOffline };
}

function testCommand(args: readonly string[]): PolicyCommand {
  const { values, positionals } = parseArgs({
    args: [...args],
    options: testOptions,
    allowPositionals: true,
  });
  if (values.help === true) return { kind: "help" };
  const [directory, extra] = positionals;
  if (!directory) return usageError("policy test needs a directory of cases");
  if (extra !== undefined) return usageError(`unexpected argument "${extra}"`);
  return { kind: "policy-test", directory, json: values.json ?? false };
}

function suggestCommand(args: readonly string[]): PolicyCommand {
  const { values } = parseArgs({ args: [...args], options: suggestOptions });
  if (values.help === true) return { kind: "help" };
  const { config, from, lenient = false, json = false } = values;
  if (!config) return usageError("--config is required");
  if (from === "") return usageError("--from must not be empty");
  return {
    kind: "policy-suggest",
    file: config,
    lenient,
    json,
    ...(from === undefined ? {} : { from }),
  };
}

function usageError(message: string): PolicyCommand {
  return { kind: "usage-error", message };
}
