/** The configuration of token-broker, with the keys and defaults of the Go program and those added since. */
import { z } from "zod";
import { duration, serviceUrl, words } from "../config-values.ts";
import { maxRules } from "../credentials/host-routes.ts";
import { brokerRule } from "./routes.ts";

/** The schema of `config` of a token-broker entry. */
export const tokenBrokerConfig = z.strictObject({
  broker_url: serviceUrl()
    .refine((text) => isPlain(text), {
      error: "must have no user information, query or fragment",
    })
    .describe("Address of the broker; /sessions/token below it is asked."),
  default_policy: z
    .enum(["passthrough", "broker"])
    .default("passthrough")
    .describe("What happens to hosts that no route names."),
  routes: z
    .strictObject({
      file: words()
        .optional()
        .describe("Routes file, read again when it changes; it must exist at the start."),
      rules: z
        .array(brokerRule)
        .max(maxRules)
        .default([])
        .describe("Rules after those of the file."),
    })
    .prefault({})
    .describe("For which hosts the broker is asked; the first rule that matches decides."),
  timeout: duration(100, 3_600_000)
    .default("310s")
    .describe("How long one question may take: the broker may wait for a user's consent."),
  max_pending: z
    .int()
    .min(1)
    .max(10_000)
    .default(64)
    .describe("Questions to the broker that may be pending at once; one more is refused (503)."),
  max_pending_per_token: z
    .int()
    .min(1)
    .max(10_000)
    .default(16)
    .describe("The same for one caller's token."),
  resolve_placeholders: z
    .boolean()
    .default(false)
    .describe("Show the broker the token behind a handle that jwt-validation gave to the agent."),
});

/** A checked configuration. */
export type TokenBrokerConfig = z.output<typeof tokenBrokerConfig>;

function isPlain(text: string): boolean {
  const { username, password, search, hash } = new URL(text);
  return username === "" && password === "" && search === "" && hash === "" && !/[?#]/.test(text);
}
