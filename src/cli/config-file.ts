/** The file that a command is about, or what is wrong with it on stderr. */
import { loadConfig, type LoadedConfig, type LoadOptions } from "../config/load.ts";
import { formatProblem } from "../yaml/problem.ts";
import { messageOf, ProxyError } from "../errors.ts";

/** A file and how strictly to read it. */
export interface FileCommand {
  readonly file: string;
  readonly lenient: boolean;
}

/** Undefined after the problems were printed; the exit code is 2 then. */
export async function commandFile(
  { file, lenient }: FileCommand,
  options: Pick<LoadOptions, "allowUnset"> = {},
): Promise<LoadedConfig | undefined> {
  const loaded = await loadConfig(file, { ...options, lenient, env: process.env });
  if (loaded.kind === "loaded") return loaded;
  for (const problem of loaded.problems) process.stderr.write(`${formatProblem(problem)}\n`);
  return undefined;
}

/** Says why a command cannot do its work; the exit code is 2 for what the file or the arguments are to blame for. */
export function refuseCommand(reason: unknown): number {
  const text = typeof reason === "string" ? reason : messageOf(reason);
  process.stderr.write(`authbridge-proxy: ${text}\n`);
  const isBlamed =
    typeof reason === "string" ||
    (reason instanceof ProxyError && reason.code === "config.invalid");
  return isBlamed ? 2 : 1;
}
