/** Which executables an entry admits: by exact path, or by pattern, of the caller or of any of its ancestors. */
import { BoundedMap } from "../bounded-map.ts";
import type { Glob, GlobTable } from "../pattern/glob.ts";

/** What stands for a caller that could not be identified; no path looks like this and no pattern matches it. */
export const unresolvedBinary = "<unresolved>";

/** Who made a connection, as far as the system can tell. */
export interface CallerFacts {
  /** Path of the executable; {@link unresolvedBinary} or absent when nobody could tell. */
  readonly binary?: string | undefined;
  readonly binaryPid?: number | undefined;
  /** Executables of the ancestors, nearest first. */
  readonly ancestors?: readonly string[] | undefined;
  /** Other names of `binary` and of the ancestors: symbolic links of the policy that lead to them. */
  readonly aliases?: readonly string[] | undefined;
  /** Absolute paths among the arguments: shown in reasons, never a ground to grant. */
  readonly cmdline?: readonly string[] | undefined;
}

/** Paths whose pattern result is remembered per list; more are simply matched again. */
const maxRemembered = 1024;

/** The binaries of one entry, compiled. */
export class BinaryMatcher {
  readonly isEmpty: boolean;
  readonly #exact: ReadonlySet<string>;
  readonly #globs: readonly Glob[];
  readonly #remembered = new BoundedMap<string, boolean>(maxRemembered);

  constructor(binaries: readonly string[], globs: GlobTable) {
    this.isEmpty = binaries.length === 0;
    this.#exact = new Set(binaries.filter((path) => !path.includes("*")));
    this.#globs = binaries
      .filter((path) => path.includes("*"))
      .map((pattern) => globs.compile(pattern, ["/"]));
  }

  /** True when a non-empty list names the caller. */
  matches(caller: CallerFacts): boolean {
    const { binary } = caller;
    if (binary === undefined || binary === "" || binary === unresolvedBinary) return false;
    if (this.#names(binary)) return true;
    if (caller.ancestors?.some((ancestor) => this.#names(ancestor)) === true) return true;
    return caller.aliases?.some((alias) => this.#exact.has(alias)) === true;
  }

  #names(path: string): boolean {
    if (this.#exact.has(path)) return true;
    if (this.#globs.length === 0 || path === unresolvedBinary) return false;
    return this.#remembered.getOrMake(path, () => this.#globs.some((glob) => glob.matches(path)));
  }
}
