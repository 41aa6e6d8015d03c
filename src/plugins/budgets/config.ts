/** The configuration of budgets. */
import { z } from "zod";
import { compileHostGlob } from "../../pattern/host-pattern.ts";
import { messageOf } from "../../errors.ts";
import { age, duration, words } from "../config-values.ts";
import { maxMembers } from "../../pipeline/plugin.ts";
import { mostDollars } from "../parsers/prices.ts";
import { dimensions, units } from "./limit.ts";
import { windows } from "./window.ts";
import { guarded, narrowing } from "../../yaml/empty-values.ts";

const hostPattern = z.string().superRefine((pattern, context) => {
  try {
    compileHostGlob(pattern);
  } catch (error) {
    context.addIssue({ code: "custom", message: messageOf(error) });
  }
});

const limitSchema = z
  .strictObject({
    name: z
      .string()
      .regex(/^[\w.-]{1,64}$/, { error: "must be a word of letters, digits, dots and dashes" })
      .describe("Its name in refusals, events and keys; with another name it begins anew."),
    unit: z
      .enum(units)
      .describe(
        "tokens and cost (US dollars) of calls of language models, these calls, requests, calls of MCP tools, bytes in both directions, or those that callers send (bytes_up: heads and bodies of requests, everything in a tunnel) and receive (bytes_down), counted while they go by; hosts (distinct ones), subdomains (distinct names below each domain), name_entropy and url_entropy (bits that look random in names of hosts below their domain, and in paths with their queries; each name and URL counts once).",
      ),
    limit: z.number().positive().describe("How much of it; a whole number except for cost."),
    window: z
      .enum(windows)
      .describe(
        "In which stretch of time, in UTC; a week begins on Monday, a lifetime never ends.",
      ),
    by: z
      .array(z.enum(dimensions))
      .max(dimensions.length)
      .default([])
      .describe(
        "One budget for each caller (agent, executable or address), subject (verified user), session, model, route (host and port of the destination) or domain (what follows the star in `hosts`, else the last two labels, three below such as co.uk), or for each combination. Default []: one for all.",
      ),
    mode: z
      .enum(["hard", "soft", "ask"])
      .default("hard")
      .describe(
        "hard: what is above is refused. soft: it passes, is recorded, and has the field X-Budget-Exceeded in its response. ask: a person is asked (docs/approval.md), and what is approved passes and is counted; what ends in its middle is refused. Default hard.",
      ),
    hosts: narrowing(hostPattern, 1_000).describe(
      "Only these destinations. A tunnel to one of them has to be opened by the bridge. Default: all.",
    ),
    models: narrowing(words(), 1_000).describe(
      "Only these models; * stands for any characters. Default: all.",
    ),
    refuses: guarded(
      z
        .enum(["counted", "all"])
        .default("counted")
        .describe(
          "What is refused when it is used up: counted messages, or everything of that caller, subject, session or route. Default counted.",
        ),
    ),
    unknown: z
      .enum(["share", "skip"])
      .default("share")
      .describe(
        "Messages of which it is not known whose they are. share: they have one budget together. skip: they are not counted. Default share.",
      ),
    forget_after: age()
      .optional()
      .describe(
        "With window: lifetime, how long after its last use it begins anew. Default: 720h for sessions, never for others.",
      ),
  })
  .superRefine(({ unit, limit, window, forget_after: forget }, context) => {
    const issue = (key: string, message: string): void =>
      context.addIssue({ code: "custom", path: [key], message });
    if (unit === "cost" && limit > mostDollars) issue("limit", `must be at most ${mostDollars}`);
    if (unit !== "cost" && !Number.isSafeInteger(limit)) issue("limit", "must be a whole number");
    if ((unit === "hosts" || unit === "subdomains") && limit > maxMembers) {
      issue("limit", `must be at most ${maxMembers}: no more are remembered`);
    }
    if (forget !== undefined && window !== "lifetime") {
      issue("forget_after", "is only for window: lifetime");
    }
  });

/** The schema of `config` of a budgets entry. */
export const budgetsConfig = z.strictObject({
  limits: z
    .array(limitSchema)
    .min(1)
    .max(100)
    .superRefine((limits, context) => {
      for (const [at, { name }] of limits.entries()) {
        if (limits.findIndex((other) => other.name === name) === at) continue;
        const message = "is the name of another limit";
        context.addIssue({ code: "custom", path: [at, "name"], message });
      }
    })
    .describe("The budgets; a message has to be within all that count it."),
  when_away: z
    .enum(["refuse", "allow"])
    .default("refuse")
    .describe(
      "What happens to messages while the store of `state` is away. allow: they pass, and what they take is added when it is back. Default refuse.",
    ),
  wait: duration(0)
    .default("10s")
    .describe(
      "Longest that a message waits where only calls under way in this process hold what is left. Default 10s.",
    ),
  lease: z
    .number()
    .min(0)
    .max(0.5)
    .default(0)
    .describe(
      "Share of what is left of a hard limit that a process takes from the store at once, so that the messages after it ask nobody, such as 0.01. Replicas never take more together than without it; what one has and does not use the others lack until it gives it back, about a second later. Default 0: each message asks the store.",
    ),
  reserve_tokens: z
    .int()
    .min(0)
    .max(10_000_000)
    .default(4_096)
    .describe("Tokens kept for an answer whose request does not bound it. Default 4096."),
  reserve_bytes: z
    .int()
    .min(0)
    .max(1_000_000_000)
    .default(65_536)
    .describe("Bytes kept for a response. Default 65536."),
  prices_file: guarded(
    words()
      .optional()
      .describe(
        "Prices of models, in the form of the program's own table (config/prices/models.yaml); read again when it changes. Default: that table.",
      ),
  ),
  unknown_models: z
    .enum(["refuse", "allow"])
    .default("refuse")
    .describe(
      "Calls of models without a price under a hard limit of cost. allow: they are counted with what a gateway says that it charges, else with nothing. Default refuse.",
    ),
});

/** A checked configuration. */
export type BudgetsConfig = z.output<typeof budgetsConfig>;
