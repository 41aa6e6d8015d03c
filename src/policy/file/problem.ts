/** What is wrong with a policy, said once per problem and with its place. */

import { formatKeyPath, type KeyPath, type Position } from "../../yaml/problem.ts";

/** Finds where a key path stands in the file; undefined when it cannot tell. */
export type Locate = (path: KeyPath) => Position | undefined;

/** One problem. An error refuses the document, a warning does not. */
export interface Problem extends Partial<Position> {
  readonly severity: "error" | "warning";
  /** The key path as text, e.g. `network_policies.github.endpoints[0].port`. */
  readonly path: string;
  readonly keyPath: KeyPath;
  readonly message: string;
}

/** For a file with more problems than this the rest is only counted. */
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
      path: formatKeyPath(path),
      keyPath: path,
      message,
      ...position,
    });
  }
}

/** A problem as one line: `file:line:column: path: message`. */
export function problemText(problem: Problem, file?: string): string {
  const place = [file, problem.line, problem.column].filter((part) => part !== undefined);
  return [place.join(":"), problem.path, problem.message].filter((part) => part !== "").join(": ");
}
