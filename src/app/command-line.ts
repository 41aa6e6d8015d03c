/** What the command line asks for. */
import { parseArgs } from "node:util";
import { messageOf } from "../errors.ts";

/** A file and how strictly to read it. */
export interface FileCommand {
  readonly file: string;
  readonly lenient: boolean;
}

/** One parsed command line. */
export type Command =
  | ({ readonly kind: "run" | "check" } & FileCommand)
  | { readonly kind: "schema" | "version" | "help" }
  | { readonly kind: "usage-error"; readonly message: string };

/** The text of `--help`. */
export const usage = `Usage:
  authbridge-proxy --config FILE [--lenient]        run the proxy
  authbridge-proxy check --config FILE [--lenient]  validate the file and print the effective configuration
  authbridge-proxy schema                           print the JSON Schema of the file
  authbridge-proxy --version

Options:
  --config FILE  the configuration file
  --lenient      unknown keys are warnings, for files written for the Go authbridge-proxy

Exit codes: 0 success, 1 failure while running, 2 bad usage or bad configuration.
Environment: LOG_LEVEL=debug|info|warn|error (default info).
`;

/** Never throws. */
export function parseCommand(argv: readonly string[]): Command {
  let parsed;
  try {
    parsed = parseArgs({
      args: [...argv],
      allowPositionals: true,
      options: {
        config: { type: "string" },
        lenient: { type: "boolean", default: false },
        version: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
        demo: { type: "boolean", default: false },
        "ca-dir": { type: "string" },
      },
    });
  } catch (error) {
    return { kind: "usage-error", message: messageOf(error) };
  }
  const { values, positionals } = parsed;
  if (values.help) return { kind: "help" };
  if (values.version) return { kind: "version" };
  if (values.demo || values["ca-dir"] !== undefined) {
    return { kind: "usage-error", message: "--demo is not available in this version" };
  }
  const [name = "run", ...rest] = positionals;
  if (rest.length > 0) return { kind: "usage-error", message: `unexpected argument "${rest[0]}"` };
  if (name === "schema") return { kind: "schema" };
  if (name !== "run" && name !== "check")
    return { kind: "usage-error", message: `unknown command "${name}"` };
  if (values.config === undefined || values.config === "")
    return { kind: "usage-error", message: "--config is required" };
  return { kind: name, file: values.config, lenient: values.lenient };
}
