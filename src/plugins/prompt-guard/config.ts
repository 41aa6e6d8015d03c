/** The configuration of prompt-guard. */
import { z } from "zod";
import type { ConfigProblem } from "../../pipeline/plugin.ts";
import { duration, hostGlob, serviceUrl, toolGlob, words } from "../config-values.ts";
import { signalNames } from "./findings.ts";
import { secretValue } from "../credentials/secret-config.ts";
import { guarded } from "../../yaml/empty-values.ts";

/** What is looked at unless the file says otherwise. */
export const defaultContentTypes = [
  "text/*",
  "application/json",
  "application/*+json",
  "application/x-ndjson",
  "application/ndjson",
  "application/jsonl",
  "application/xml",
  "application/*+xml",
  "application/yaml",
];

const contentType = z.string().regex(/^[a-z0-9.+-]+\/(?:\*|[a-z0-9.+-]*\*?[a-z0-9.+-]+)$/, {
  error:
    'must be a media type in lower case, such as "text/html", "text/*" or "application/*+json"',
});

const rule = z.strictObject({
  name: words().describe("What refusals and records call the rule."),
  hosts: guarded(
    z
      .array(hostGlob())
      .min(1)
      .max(1_000)
      .optional()
      .describe("Destinations that the rule speaks about; absent: every one."),
  ),
  tools: guarded(
    z
      .array(toolGlob())
      .min(1)
      .max(1_000)
      .optional()
      .describe(
        "Tools that the rule speaks about, by name or glob: their results and their descriptions. Absent: every text, of tools or not.",
      ),
  ),
  content_types: guarded(
    z
      .array(contentType)
      .min(1)
      .max(100)
      .optional()
      .describe(
        `Content types of responses that the rule speaks about. Absent: ${defaultContentTypes.join(", ")}, and responses that name none.`,
      ),
  ),
  threshold: guarded(
    z
      .int()
      .min(0)
      .max(100)
      .default(50)
      .describe("The rule holds from this score on; 0: always. Default 50."),
  ),
  action: z
    .enum(["refuse", "strip", "mark", "observe"])
    .default("refuse")
    .describe(
      "refuse: the agent gets a refusal in place of the text. strip: hidden parts are taken out, and what still reaches the threshold is refused. mark: the text is wrapped as untrusted data. observe: it is recorded. Default refuse.",
    ),
  marking: z
    .enum(["delimit", "datamark"])
    .default("delimit")
    .describe(
      "How a text is marked. delimit: between two lines with a nonce. datamark: besides, a sign stands in place of every space. Default delimit.",
    ),
  remove_invisible: z
    .boolean()
    .default(true)
    .describe(
      "Whether characters that nobody sees are taken out of a text that is marked; what scripts and emoji need stays. Default true.",
    ),
});

const classifier = z
  .strictObject({
    url: serviceUrl().describe("Address that texts are posted to."),
    timeout: duration(10, 60_000)
      .default("2s")
      .describe("Until the verdict is there, waiting for a free place included. Default 2s."),
    on_failure: z
      .enum(["refuse", "observe"])
      .default("refuse")
      .describe(
        "What becomes of a text that the classifier was to judge and did not. refuse: it is refused. observe: its own score counts. Default refuse.",
      ),
    max_bytes: z
      .int()
      .min(1_024)
      .max(16_777_216)
      .default(262_144)
      .describe("Longest text that is shown; a longer one is a failure. Default 262144."),
    least_score: z
      .int()
      .min(0)
      .max(100)
      .default(0)
      .describe("Texts whose own score is below this are not shown. Default 0: every one is."),
    score: guarded(
      z
        .int()
        .min(1)
        .max(100)
        .default(60)
        .describe("What a verdict of 1 adds to the score of a text; less adds less. Default 60."),
    ),
    bearer: secretValue
      .optional()
      .describe(
        "Bearer token for the classifier: a text, or the source that it comes from, by its `type`.",
      ),
    bearer_file: words()
      .optional()
      .describe("File with the bearer token for the classifier, read at every call."),
    headers: z
      .record(z.string().regex(/^[A-Za-z0-9-]{1,64}$/), secretValue)
      .default({})
      .describe(
        "Further fields of each request: texts, which are secret, or the sources that they come from, by their `type`.",
      ),
    max_concurrency: z
      .int()
      .min(1)
      .max(1_000)
      .default(8)
      .describe("Calls at a time; sixteen times as many may wait. Default 8."),
    cache_ttl: duration(0, 86_400_000)
      .default("10m")
      .describe("How long the verdict on a text is kept; 0s: not at all. Default 10m."),
  })
  .superRefine(({ bearer, bearer_file: file }, context) => {
    if (bearer === undefined || file === undefined) return;
    const message = "has no effect with bearer";
    context.addIssue({ code: "custom", path: ["bearer_file"], message });
  });

/** The rule that holds where the file has none. */
const onlyRule = rule.parse({ name: "default" });

/** The schema of `config` of a prompt-guard entry. */
export const promptGuardConfig = z
  .strictObject({
    where: guarded(
      z
        .array(z.enum(["responses", "tool_outputs", "requests"]))
        .min(1)
        .default(["responses"])
        .describe(
          "What is looked at. responses: what servers of MCP, agents and sites send back. tool_outputs: outputs of tools in requests to language models. requests: messages to the agent, in the inbound pipeline. Default responses.",
        ),
    ),
    rules: guarded(
      z
        .array(rule)
        .min(1)
        .max(1_000)
        .default([onlyRule])
        .describe(
          "The first rule that speaks about a text and whose threshold it reaches counts; a text that reaches none passes. Default: one that refuses from a score of 50.",
        ),
    ),
    weights: guarded(
      z
        .partialRecord(z.enum(signalNames), z.number().min(0).max(10))
        .default({})
        .describe("By what the scores of single signals are multiplied; 0 switches one off."),
    ),
    unseen: z
      .enum(["refuse", "pass"])
      .default("refuse")
      .describe(
        "What becomes of tunnels that nobody opens and of upgrades (WebSockets), whose responses cannot be looked at, to hosts that a rule with an action other than observe speaks about. Default refuse.",
      ),
    unread_types: guarded(
      z
        .enum(["pass", "refuse"])
        .default("pass")
        .describe(
          "What becomes of responses of a content type that no rule takes (PDF, images, archives), from hosts that a rule with an action other than observe speaks about. Default pass.",
        ),
    ),
    classifier: guarded(
      classifier
        .optional()
        .describe("A service that is asked about each text, besides the built-in signals."),
    ),
  })
  .superRefine(({ rules }, context) => {
    const seen = new Set<string>();
    for (const [at, { name }] of rules.entries()) {
      if (seen.has(name)) {
        const message = `there are two rules "${name}"`;
        context.addIssue({ code: "custom", path: ["rules", at, "name"], message });
      }
      seen.add(name);
    }
  });

/** Keys that nothing reads, written or not. */
export function unusedKeysOf({ where, rules }: PromptGuardConfig): ConfigProblem[] {
  const isOfResponses = where.includes("responses");
  const ofResponses = isOfResponses ? [] : ["unseen", "unread_types"];
  return [
    ...ofResponses.map((key) => ({ path: [key], message: withoutResponses })),
    ...[...rules.entries()].flatMap(([at, { action }]) => [
      ...(isOfResponses
        ? []
        : [{ path: ["rules", at, "content_types"], message: withoutResponses }]),
      ...(action === "mark" ? [] : ["marking", "remove_invisible"]).map((key) => ({
        path: ["rules", at, key],
        message: "has no effect without action: mark",
      })),
    ]),
  ];
}

const withoutResponses = "has no effect without responses in where";

/** A checked configuration. */
export type PromptGuardConfig = z.output<typeof promptGuardConfig>;

/** One checked rule. */
export type GuardRuleConfig = z.output<typeof rule>;

/** A checked block `classifier`. */
export type ClassifierConfig = z.output<typeof classifier>;
