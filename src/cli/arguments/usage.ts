/** The text of `--help`, whole and about one command, from the table of commands. */
import { type Row, rows } from "./commands.ts";

const program = "authbridge-proxy";
/** Parameters that at least this many commands take are listed without the names of the commands. */
const common = 4;

const environment = `
Exit codes: 0 success, 1 failure while running or a failed check, 2 bad usage or bad configuration.
run -- COMMAND exits as COMMAND does, with 128 and the number of the signal that ended it, with 127 when it is not there.
Environment: LOG_LEVEL=debug|info|warn|error (default info).
When something does not work: doctor --config FILE, and docs/troubleshooting.md of the package.
`;

/** What `--help` says about the command of these arguments; without a command everything. */
export function helpFor(argv: readonly string[]): string {
  return wordOf(argv) === undefined ? calls(rows) + options(rows) + environment : usageFor(argv);
}

/** What is shown with a mistake in these arguments: the lines about their command, else the list of commands. */
export function usageFor(argv: readonly string[]): string {
  const word = wordOf(argv);
  const own = rows.filter(({ name }) => name.split(" ")[0] === word);
  return own.length === 0 ? calls(rows) : calls(own) + options(own);
}

function wordOf([first]: readonly string[]): string | undefined {
  return first === undefined || first.startsWith("-") ? undefined : first;
}

function calls(shown: readonly Row[]): string {
  const lines = shown.flatMap(({ usage }) =>
    Object.entries(usage).map(([call, does]) => entry(`${program} ${call}`, does, 52)),
  );
  return `Usage:\n${lines.join("")}`;
}

/** Each option once, with the commands that take it. */
function options(shown: readonly Row[]): string {
  const takers = new Map<string, { written: string; help: string; names: Set<string> }>();
  for (const { name, parameters } of rows)
    for (const { written, help } of Object.values(parameters)) {
      if (help === "") continue;
      const key = `${written} ${help}`;
      const taker = takers.get(key) ?? { written, help, names: new Set() };
      takers.set(key, taker);
      taker.names.add(name);
    }
  const lines = [...takers.values()]
    .filter(({ names }) => shown.some(({ name }) => names.has(name)))
    .map(({ written, help, names }) =>
      entry(written, names.size >= common ? help : `${[...names].join(", ")}: ${help}`, 22),
    );
  return lines.length === 0 ? "" : `\nOptions:\n${lines.join("")}`;
}

/** Two columns; what is too long for the first one gets a line of its own. */
function entry(left: string, right: string, column: number): string {
  const head = `  ${left}`;
  const indented = right.replaceAll("\n", `\n${" ".repeat(column)}`);
  if (right === "") return `${head}\n`;
  return head.length < column
    ? `${head.padEnd(column)}${indented}\n`
    : `${head}\n${" ".repeat(column)}${indented}\n`;
}
