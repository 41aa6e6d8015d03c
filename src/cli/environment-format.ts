/** Variables as text for a shell, a dotenv file or a Kubernetes manifest. */
import type { Variable } from "./client-environment.ts";

/** The ways in which variables can be written. */
export type EnvironmentFormat = "shell" | "dotenv" | "kubernetes";

/** A value that a format has no way to write. */
export class UnwritableValue extends Error {
  constructor(name: string, format: EnvironmentFormat) {
    super(
      `the value of ${name} has a character that the ${format} format cannot carry to every reader; use another path or another --format`,
    );
    this.name = "UnwritableValue";
  }
}

/** One line (two for Kubernetes) per variable. Throws {@link UnwritableValue}. */
export function formatEnvironment(
  variables: readonly Variable[],
  format: EnvironmentFormat,
): string {
  return variables.map((variable) => writers[format](variable)).join("");
}

const writers: Readonly<Record<EnvironmentFormat, (variable: Variable) => string>> = {
  shell: ([name, value]) => `export ${name}=${quoteShell(name, value)}\n`,
  dotenv: ([name, value]) => `${name}=${quoteDotenv(name, value)}\n`,
  kubernetes: ([name, value]) => `- name: ${name}\n  value: ${quoteKubernetes(name, value)}\n`,
};

/** POSIX shell: nothing is special between single quotes but the single quote. */
function quoteShell(name: string, value: string): string {
  if (value.includes("\0")) throw new UnwritableValue(name, "shell");
  return `'${value.replaceAll("'", "'\\''")}'`;
}

/**
 * There is no standard. Unquoted text without quotes, `#`, `$` and `\` means the same to Node, Python, Compose and
 * `docker --env-file`; single quotes without `'` and `\` mean the same to the first three. More is not agreed upon.
 */
function quoteDotenv(name: string, value: string): string {
  if (/^[\w./:@%+,=|*[\]()-](?:[\w./:@%+,=|*[\]() -]*[\w./:@%+,=|*[\]()-])?$/.test(value))
    return value;
  // eslint-disable-next-line no-control-regex -- control characters are what is looked for
  if (/['\\\u0000-\u001f\u007f]|\$\{/.test(value)) throw new UnwritableValue(name, "dotenv");
  return `'${value}'`;
}

/** JSON strings are YAML strings; `$(NAME)` would be replaced by Kubernetes, and `$$` is its `$`. */
function quoteKubernetes(name: string, value: string): string {
  if (value.includes("\0")) throw new UnwritableValue(name, "kubernetes");
  return JSON.stringify(value.replaceAll("$", "$$$$"));
}
