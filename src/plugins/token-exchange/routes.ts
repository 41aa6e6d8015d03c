/** The routes of token-exchange: which host gets a token for which audience. */
import { z } from "zod";
import { BoundedMap } from "../../bounded-map.ts";
import { compileHostGlob, type HostGlob } from "../../pattern/host-pattern.ts";
import type { Clock } from "../../pipeline/plugin.ts";
import { messageOf } from "../../errors.ts";
import { readYaml } from "../../yaml/read.ts";
import { hostGlob, serviceUrl, words } from "../config-values.ts";
import { type DpopChoice, dpopChoices } from "./credential.ts";
import { type AudienceCheck, audienceChecks } from "./issued-audience.ts";
import { WatchedFile } from "../../files/watched-file.ts";

/** One rule, as it stands in the routes file and inline. */
export const exchangeRule = z.strictObject({
  host: hostGlob().describe("Destination host, as a glob in which * stays within one label."),
  target_audience: z.string().optional().describe("Audience of the token that is asked for."),
  token_scopes: z
    .union([z.string(), z.array(words()).max(100)])
    .optional()
    .describe("Scopes of the token that is asked for, separated by spaces or as a list."),
  resource: serviceUrl().optional().describe("Resource indicator of RFC 8707."),
  token_url: serviceUrl().optional().describe("Token endpoint for this host."),
  issued_audiences: z
    .enum(audienceChecks)
    .optional()
    .describe("The plugin's issued_audiences for this host."),
  dpop: z.enum(dpopChoices).optional().describe("The plugin's dpop for this host."),
  action: z
    .enum(["exchange", "passthrough"])
    .default("exchange")
    .describe("passthrough leaves the request's credential as it is."),
  passthrough: z.boolean().optional().describe("true is another way to write action: passthrough."),
});

/** A checked rule. */
export type ExchangeRule = z.output<typeof exchangeRule>;

/** A compiled rule. */
export interface ExchangeRoute {
  /** The host pattern as the operator wrote it; empty for the default policy. */
  readonly host: string;
  readonly passthrough: boolean;
  readonly audience?: string | undefined;
  readonly scopes: readonly string[];
  readonly resource?: string | undefined;
  readonly tokenUrl?: string | undefined;
  readonly issuedAudiences?: AudienceCheck | undefined;
  readonly dpop?: DpopChoice | undefined;
}

interface Compiled {
  readonly glob: HostGlob;
  readonly route: ExchangeRoute;
}

const rulesList = z.array(exchangeRule).max(10_000);
/** A bare list, as the Go program takes it, or a map with one key `routes`, as its documents show it. */
const routesFile = z.union([rulesList, z.strictObject({ routes: rulesList.nullable() })], {
  error: "must be a list of rules, or a mapping with the key routes",
});

/** Reads the text of a routes file; an Error says everything that is wrong with it, and where. */
export function parseRoutesFile(text: string, file = "routes file"): ExchangeRule[] {
  const rules = readYaml(routesFile, { text, file, ifEmpty: [] });
  return Array.isArray(rules) ? rules : (rules.routes ?? []);
}

/** Options of {@link ExchangeRoutes}. */
export interface ExchangeRoutesOptions {
  readonly file: string;
  readonly rules: readonly ExchangeRule[];
  readonly clock: Clock;
  /** Why a token endpoint of the file cannot be called: the set of origins is fixed for a generation. */
  problemOf(tokenUrl: string): string | undefined;
  onProblem(message: string): void;
}

const maxRemembered = 1_024;

/** File rules first, then inline rules; the first that matches decides. */
export class ExchangeRoutes {
  readonly #file: WatchedFile<readonly Compiled[]>;
  readonly #inline: readonly Compiled[];
  /** Answers by host, for the file's content that they were made from. */
  readonly #known = new BoundedMap<string, ExchangeRoute | undefined>(maxRemembered);
  #answersOf: readonly Compiled[] | undefined;

  /** Throws an Error for a file that exists and cannot be used; later the last good content stays. */
  constructor(options: ExchangeRoutesOptions) {
    let problem: string | undefined;
    this.#file = new WatchedFile({
      path: options.file,
      clock: options.clock,
      parse: (text) =>
        parseRoutesFile(text, options.file).map((rule) => {
          const { token_url: url } = rule;
          const fault = url === undefined ? undefined : options.problemOf(url);
          if (fault !== undefined) throw new Error(`token_url ${url} ${fault}`);
          return compileRule(rule);
        }),
      onProblem: (message, isMissing, error) => {
        if (isMissing) return;
        const placed = messageOf(error);
        problem = placed.startsWith(`${options.file}:`) ? placed : message;
        options.onProblem(problem);
      },
    });
    this.#inline = options.rules.map(compileRule);
    this.#file.current();
    if (problem !== undefined) throw new Error(problem);
  }

  /** The rule for a destination host, which comes without a port. */
  find(host: string): ExchangeRoute | undefined {
    const fromFile = this.#file.current();
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

function findIn(routes: readonly Compiled[], host: string): ExchangeRoute | undefined {
  return routes.find(({ glob }) => glob.matches(host))?.route;
}

function compileRule(rule: ExchangeRule): Compiled {
  const { token_scopes: scopes = [] } = rule;
  const listed = typeof scopes === "string" ? scopes.split(/\s+/) : scopes;
  return {
    glob: compileHostGlob(rule.host),
    route: Object.freeze({
      host: rule.host,
      passthrough: rule.passthrough === true || rule.action === "passthrough",
      audience: rule.target_audience || undefined,
      scopes: listed.filter((scope) => scope !== ""),
      resource: rule.resource,
      tokenUrl: rule.token_url,
      issuedAudiences: rule.issued_audiences,
      dpop: rule.dpop,
    }),
  };
}
