/** Routes by destination host: those of a file, which is read again when it changes, then those of the configuration. */
import { z } from "zod";
import { BoundedMap } from "../../bounded-map.ts";
import { messageOf } from "../../errors.ts";
import { WatchedFile } from "../../files/watched-file.ts";
import { compileHostGlob, type HostGlob } from "../../pattern/host-pattern.ts";
import type { Clock } from "../../pipeline/plugin.ts";
import { readYaml } from "../../yaml/read.ts";

/** What every rule has: a glob over host names. */
interface HostRule {
  readonly host: string;
}

interface Compiled<Route> {
  readonly glob: HostGlob;
  readonly route: Route;
}

/** As many as a list of rules may have. */
export const maxRules = 10_000;

const maxRemembered = 1_024;

/**
 * Reads the text of a routes file: a bare list, as the Go program takes it, or a map with one key `routes`, as its
 * documents show it. An Error says everything that is wrong with it, and where.
 */
export function rulesReader<Rule extends HostRule>(
  rule: z.ZodType<Rule>,
): (text: string, file?: string) => readonly Rule[] {
  const list = z.array(rule).max(maxRules);
  const schema = z.union([list, z.strictObject({ routes: list.nullable() })], {
    error: "must be a list of rules, or a mapping with the key routes",
  });
  return (text, file = "routes file") => {
    const rules = readYaml(schema, { text, file, ifEmpty: [] });
    return Array.isArray(rules) ? rules : (rules.routes ?? []);
  };
}

/** Options of {@link HostRoutes}. */
export interface HostRoutesOptions<Rule extends HostRule, Route> {
  readonly file: string | undefined;
  readonly rules: readonly Rule[];
  readonly clock: Clock;
  /** The rules of the file's text; throws an Error for those that cannot be used. */
  parse(text: string, file: string): readonly Rule[];
  compile(rule: Rule): Route;
  /** `isMissing`: there is no such file. */
  onProblem(message: string, isMissing: boolean): void;
}

/** File rules first, then inline rules; the first that matches decides. */
export class HostRoutes<Rule extends HostRule, Route extends object> {
  readonly #file: WatchedFile<readonly Compiled<Route>[]> | undefined;
  readonly #inline: readonly Compiled<Route>[];
  /** Answers by host, for the file's content that they were made from. */
  readonly #known = new BoundedMap<string, Route | undefined>(maxRemembered);
  #answersOf: readonly Compiled<Route>[] | undefined;

  /** Tells of a file that cannot be used at once; later the last good content stays. */
  constructor(options: HostRoutesOptions<Rule, Route>) {
    const { file, rules, clock } = options;
    const compiled = (rule: Rule): Compiled<Route> => ({
      glob: compileHostGlob(rule.host),
      route: options.compile(rule),
    });
    this.#inline = rules.map(compiled);
    if (file === undefined) return;
    this.#file = new WatchedFile({
      path: file,
      clock,
      parse: (text) => options.parse(text, file).map(compiled),
      onProblem: (message, isMissing, error) => {
        const placed = messageOf(error);
        options.onProblem(placed.startsWith(`${file}:`) ? placed : message, isMissing);
      },
    });
    this.#file.current();
  }

  /** The rule for a destination host, which comes without a port. */
  find(host: string): Route | undefined {
    const fromFile = this.#file?.current();
    if (fromFile !== this.#answersOf) {
      this.#known.clear();
      this.#answersOf = fromFile;
    }
    const known = this.#known.get(host);
    if (known !== undefined || this.#known.has(host)) return known;
    const route = findIn(fromFile ?? [], host) ?? findIn(this.#inline, host);
    this.#known.set(host, route);
    return route;
  }
}

function findIn<Route>(routes: readonly Compiled<Route>[], host: string): Route | undefined {
  return routes.find(({ glob }) => glob.matches(host))?.route;
}
