/**
 * A problem of the file: where it is, which key it is about and what to write instead.
 */

/** A place in the file, counted from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

/** One thing that is wrong, or questionable, in the file. It never quotes a value. */
export interface Problem extends Position {
  readonly file: string;
  /** Such as `pipeline.inbound.plugins[0].on_error`; empty when the problem is about the file as a whole. */
  readonly keyPath: string;
  readonly message: string;
  readonly suggestion?: string | undefined;
}

/** Steps from the top of the file to a value. */
export type KeyPath = readonly (string | number)[];

/** One line for people: `config.yaml:12:7 listener.forwrd_proxy_addr: unknown key (did you mean forward_proxy_addr?)`. */
export function formatProblem(problem: Problem): string {
  const { file, line, column, keyPath, message, suggestion } = problem;
  const subject = keyPath === "" ? "" : `${keyPath}: `;
  const hint = suggestion === undefined ? "" : ` (did you mean ${suggestion}?)`;
  return `${file}:${line}:${column} ${subject}${message}${hint}`;
}

/** Writes a path as people do. Keys are written so that no control character reaches a terminal. */
export function formatKeyPath(path: KeyPath): string {
  let text = "";
  for (const step of path) {
    if (typeof step === "number") text += `[${step}]`;
    else text += `${text === "" ? "" : "."}${printableKey(step)}`;
  }
  return text;
}

function printableKey(key: string): string {
  const short = key.length > 64 ? `${key.slice(0, 64)}…` : key;
  return /^[\w.$/@:*-]+…?$/.test(short) ? short : JSON.stringify(short);
}

/** The known key that is nearest to a mistyped one, if one is near enough to be meant. */
export function nearestKey(key: string, known: readonly string[]): string | undefined {
  if (key.length > 64) return undefined;
  const wanted = fold(key);
  let best: string | undefined;
  const { length } = wanted;
  let bestDistance = Math.max(2, Math.min(3, length >> 1), length >> 2) + 1;
  for (const candidate of known) {
    const distance = editDistance(wanted, fold(candidate));
    if (distance >= bestDistance || distance >= candidate.length) continue;
    best = candidate;
    bestDistance = distance;
  }
  return best;
}

/** forwardProxyAddr and forward-proxy-addr mean forward_proxy_addr. */
function fold(key: string): string {
  return key
    .replace(/([a-z0-9])([A-Z])/g, "$1_$2")
    .replaceAll("-", "_")
    .toLowerCase();
}

/** Insertions, deletions, replacements and swaps of neighbours that turn one text into the other. */
function editDistance(from: string, to: string): number {
  let beforePrevious: number[] = [];
  let previous = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (let row = 1; row <= from.length; row++) {
    const current = [row];
    for (let column = 1; column <= to.length; column++) {
      const cost = from[row - 1] === to[column - 1] ? 0 : 1;
      const isSwap = from[row - 1] === to[column - 2] && from[row - 2] === to[column - 1];
      current.push(
        Math.min(
          (previous[column] ?? 0) + 1,
          (current[column - 1] ?? 0) + 1,
          (previous[column - 1] ?? 0) + cost,
          isSwap
            ? (beforePrevious[column - 2] ?? Number.POSITIVE_INFINITY) + 1
            : Number.POSITIVE_INFINITY,
        ),
      );
    }
    beforePrevious = previous;
    previous = current;
  }
  return previous[to.length] ?? 0;
}
