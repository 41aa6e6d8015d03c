/** The routes of token-exchange: which host gets a token for which audience. */
import { z } from "zod";
import type { Clock } from "../../pipeline/plugin.ts";
import { guarded } from "../../yaml/empty-values.ts";
import { hostGlob, serviceUrl, words } from "../config-values.ts";
import { HostRoutes, rulesReader } from "../credentials/host-routes.ts";
import { placesConfig } from "../credentials/place-config.ts";
import { Places } from "../credentials/places.ts";
import { type DpopChoice, dpopChoices } from "./credential.ts";
import { type AudienceCheck, audienceChecks } from "./issued-audience.ts";

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
  dpop: guarded(z.enum(dpopChoices).optional().describe("The plugin's dpop for this host.")),
  places: placesConfig("The plugin's places for this host."),
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
  readonly places?: Places | undefined;
}

/** Reads the text of a routes file; an Error says everything that is wrong with it, and where. */
export const parseRoutesFile = rulesReader(exchangeRule);

/** Options of {@link ExchangeRoutes}. */
export interface ExchangeRoutesOptions {
  readonly file: string;
  readonly rules: readonly ExchangeRule[];
  readonly clock: Clock;
  /** Why a rule of the file cannot be followed: the set of origins is fixed for a generation. */
  problemOf(rule: ExchangeRule): string | undefined;
  onProblem(message: string): void;
}

/** The routes of one instance. The file need not exist. */
export class ExchangeRoutes extends HostRoutes<ExchangeRule, ExchangeRoute> {
  /** Throws an Error for a file that exists and cannot be used; later the last good content stays. */
  constructor(options: ExchangeRoutesOptions) {
    let problem: string | undefined;
    super({
      ...options,
      parse: (text, file) => {
        const rules = parseRoutesFile(text, file);
        for (const rule of rules) {
          const fault = options.problemOf(rule);
          if (fault !== undefined) throw new Error(fault);
        }
        return rules;
      },
      compile: compileRule,
      onProblem: (message, isMissing) => {
        if (isMissing) return;
        problem = message;
        options.onProblem(message);
      },
    });
    if (problem !== undefined) throw new Error(problem);
  }
}

function compileRule(rule: ExchangeRule): ExchangeRoute {
  const { token_scopes: scopes = [] } = rule;
  const listed = typeof scopes === "string" ? scopes.split(/\s+/) : scopes;
  return Object.freeze({
    host: rule.host,
    passthrough: rule.passthrough === true || rule.action === "passthrough",
    audience: rule.target_audience || undefined,
    scopes: listed.filter((scope) => scope !== ""),
    resource: rule.resource,
    tokenUrl: rule.token_url,
    issuedAudiences: rule.issued_audiences,
    dpop: rule.dpop,
    places: rule.places && new Places(rule.places),
  });
}
