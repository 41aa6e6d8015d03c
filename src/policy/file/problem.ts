/** What is wrong with a policy, said once per problem and with its place. */

/** A place in the author's file, counted from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

/** Keys and indexes from the root of the document. */
export type KeyPath = readonly (string | number)[];

/** Finds where a key path stands in the file; undefined when it cannot tell. */
export type Locate = (path: KeyPath) => Position | undefined;

/** One problem. An error refuses the document, a warning does not. */
export interface Problem {
  readonly severity: "error" | "warning";
  /** The key path as text, e.g. `network_policies.github.endpoints[0].port`. */
  readonly path: string;
  readonly keyPath: KeyPath;
  readonly message: string;
  readonly line?: number;
  readonly column?: number;
}

/** A file with more problems than this is told so instead of being listed to its end. */
const maxProblems = 200;

/** Collects problems in the order they are found. */
export class Problems {
  readonly #locate: Locate | undefined;
  readonly #found: Problem[] = [];
  #errors = 0;
  #dropped = 0;

  constructor(locate?: Locate) {
    this.#locate = locate;
  }

  get list(): readonly Problem[] {
    if (this.#dropped === 0) return this.#found;
    const message = `${this.#dropped} more problems are not listed`;
    return [...this.#found, { severity: "error", path: "", keyPath: [], message }];
  }

  get hasErrors(): boolean {
    return this.#errors > 0;
  }

  error(path: KeyPath, message: string): void {
    this.#errors += 1;
    this.#add("error", path, message);
  }

  warning(path: KeyPath, message: string): void {
    this.#add("warning", path, message);
  }

  #add(severity: Problem["severity"], path: KeyPath, message: string): void {
    if (this.#found.length >= maxProblems) {
      this.#dropped += 1;
      return;
    }
    const position = this.#locate?.(path);
    this.#found.push({
      severity,
      path: pathText(path),
      keyPath: path,
      message,
      ...(position === undefined ? {} : { line: position.line, column: position.column }),
    });
  }
}

/** A key path as an author reads it. */
export function pathText(path: KeyPath): string {
  let text = "";
  for (const part of path) {
    if (typeof part === "number") text += `[${part}]`;
    else if (/^[\w-]+$/.test(part)) text += text === "" ? part : `.${part}`;
    else text += `[${JSON.stringify(part)}]`;
  }
  return text;
}

/** A problem as one line: `file:line:column: path: message`. */
export function problemText(problem: Problem, file?: string): string {
  const place = [file, problem.line, problem.column].filter((part) => part !== undefined);
  return [place.join(":"), problem.path, problem.message].filter((part) => part !== "").join(": ");
}

/** The known word nearest to what was written, if it is near enough to be meant. */
export function nearestWord(written: string, known: Iterable<string>): string | undefined {
  if (written.length > 64) return undefined;
  let best: string | undefined;
  let bestDistance = (written.length < 4 ? 1 : Math.max(2, Math.floor(written.length / 2))) + 1;
  for (const word of known) {
    if (Math.abs(word.length - written.length) >= bestDistance) continue;
    const distance = editDistance(written.toLowerCase(), word.toLowerCase());
    if (distance < bestDistance) [best, bestDistance] = [word, distance];
  }
  return best;
}

function editDistance(one: string, other: string): number {
  let row = Array.from({ length: other.length + 1 }, (_, index) => index);
  for (let i = 1; i <= one.length; i += 1) {
    const next = [i];
    for (let j = 1; j <= other.length; j += 1) {
      const change = (row[j - 1] ?? 0) + (one[i - 1] === other[j - 1] ? 0 : 1);
      next.push(Math.min(change, (row[j] ?? 0) + 1, (next[j - 1] ?? 0) + 1));
    }
    row = next;
  }
  return row[other.length] ?? 0;
}
