/** The configuration of dlp. What a rule names that exists nowhere is found here, with its place. */
import { z } from "zod";
import { detectorNames, standardDetectors } from "../../dlp/detectors.ts";
import type { ConfigProblem } from "../../pipeline/plugin.ts";
import { hostGlob, words } from "../config-values.ts";
import { guarded } from "../../yaml/empty-values.ts";

/** Words that stand for several detectors. */
const groups: Readonly<Record<string, readonly string[]>> = {
  standard: standardDetectors,
  financial: ["cards", "iban"],
  personal: ["email", "phone", "us_ssn"],
};

const maxRules = 1_000;
const name = (): z.ZodString =>
  z
    .string()
    .regex(/^[a-z0-9][a-z0-9_-]{0,63}$/i, { error: "must be a name of letters, digits, - and _" });

const detectors = z.array(words()).max(64);

const verdict = {
  detectors: guarded(
    detectors
      .default(["standard"])
      .describe(
        `What is looked for in requests: ${[...detectorNames, ...Object.keys(groups)].join(", ")}, or the name of a pattern or a list. Default standard: ${standardDetectors.join(", ")}.`,
      ),
  ),
  response_detectors: guarded(
    detectors
      .default(["own_secrets"])
      .describe(
        "What is looked for in responses that are text. Empty: responses are not read. Default own_secrets.",
      ),
  ),
  action: z
    .enum(["refuse", "ask", "redact", "observe", "pass"])
    .describe(
      "refuse: the message does not go on. ask: a person decides about the request (approval); what is no request is refused. redact: what was found is replaced, or the message refused where that cannot be done. observe: it is recorded only. pass: nothing is looked for.",
    ),
  mask: z
    .enum(["label", "same_length"])
    .default("label")
    .describe("What redact writes: the name of the detector, or as many stars. Default label."),
};

const rule = z.strictObject({
  name: name().optional().describe("For records and refusals; rules[N] when absent."),
  hosts: z.array(hostGlob()).min(1).max(10_000).describe("Destinations, as host globs."),
  ...verdict,
});

/** The schema of `config` of a dlp entry. */
export const dlpConfig = z
  .strictObject({
    rules: guarded(
      z
        .array(rule)
        .max(maxRules)
        .default([])
        .describe(
          "For each detector the first rule counts that selects the destination and names it.",
        ),
    ),
    default: guarded(
      z
        .strictObject(verdict)
        .default({
          detectors: ["standard"],
          response_detectors: ["own_secrets"],
          action: "refuse",
          mask: "label",
        })
        .describe("The rule behind all others, for every destination."),
    ),
    patterns: z
      .array(
        z.strictObject({
          name: name(),
          pattern: words().describe("In the syntax of RE2: it runs in linear time."),
        }),
      )
      .max(100)
      .default([])
      .describe("Detectors of your own, by pattern."),
    lists: z
      .array(
        z.strictObject({
          name: name(),
          file: words().describe(
            "One text a line, 4 bytes to 4 KiB each, # for remarks. Read again when it changes; the last good content stays in use.",
          ),
        }),
      )
      .max(16)
      .default([])
      .describe("Detectors of your own, by lists of texts."),
    opaque_tunnels: z
      .enum(["refuse", "pass"])
      .default("refuse")
      .describe(
        "What becomes of a tunnel to a destination of a rule that refuses or redacts, where its requests cannot be read (no tls_bridge, or no HTTP). Default refuse.",
      ),
    larger_bodies: z
      .enum(["refuse", "stream"])
      .default("refuse")
      .describe(
        "What becomes of a request body above limits.max_body. refuse: it is refused. stream: it is looked through as it passes, and cut off where something is found. Default refuse.",
      ),
    credential_fields: z
      .array(
        z.string().regex(/^(?!\*)[!#$%&'*+\-.^`|~\w]+$/, {
          error: "must be a header name, or the beginning of one and *",
        }),
      )
      .max(100)
      .default([])
      .describe(
        "Fields besides Authorization, Cookie and those of API keys that credentials belong in: only own_secrets is looked for there. A trailing * stands for any ending.",
      ),
    max_depth: z
      .int()
      .min(1)
      .max(8)
      .default(5)
      .describe("How many codings are undone that lie in each other. Default 5."),
    max_decoded_bytes: z
      .int()
      .min(65_536)
      .max(268_435_456)
      .default(33_554_432)
      .describe(
        "What all codings of one message may come to, besides eight times its length; a message of a refusing rule that comes to more is refused. Default 32 MiB.",
      ),
  })
  .superRefine((config, context) => {
    const issue = (path: (string | number)[], message: string): void =>
      context.addIssue({ code: "custom", path, message });
    const own = new Set<string>([...detectorNames, ...Object.keys(groups)]);
    for (const key of ["patterns", "lists"] as const) {
      for (const [index, { name: given }] of config[key].entries()) {
        if (own.has(given))
          issue([key, index, "name"], `"${given}" is the name of another detector`);
        own.add(given);
      }
    }
    const all = [...config.rules.entries()].map(([index, one]) => ({ at: ["rules", index], one }));
    for (const { at, one } of [...all, { at: ["default"], one: config.default }]) {
      if (one.action !== "pass" && one.detectors.length + one.response_detectors.length === 0)
        issue(at, "looks for nothing: name detectors, or write action: pass");
      for (const key of ["detectors", "response_detectors"] as const) {
        for (const [index, named] of one[key].entries()) {
          if (!own.has(named))
            issue([...at, key, index], `"${named}" is no detector, pattern or list`);
        }
      }
    }
  });

/** A checked configuration. */
export type DlpConfig = z.output<typeof dlpConfig>;

/** Keys that nothing reads, written or not: detectors that no rule looks for, and masks of what is not redacted. */
export function unusedKeysOf(config: DlpConfig): ConfigProblem[] {
  const rules = [...config.rules, config.default];
  const looking = rules.filter(({ action }) => action !== "pass");
  const named = new Set(looking.flatMap((one) => [...one.detectors, ...one.response_detectors]));
  const ofDetectors = (["patterns", "lists"] as const).flatMap((key) =>
    [...config[key].entries()].flatMap(([index, { name: given }]) =>
      named.has(given) ? [] : [{ path: [key, index], message: unnamed }],
    ),
  );
  const ofMasks = [...rules.entries()].flatMap(([index, { action }]) => {
    const at = index < config.rules.length ? ["rules", index] : ["default"];
    return action === "redact" ? [] : [{ path: [...at, "mask"], message: unmasked }];
  });
  return [...ofDetectors, ...ofMasks];
}

const unnamed = "has no effect: no rule that looks for something names it";
const unmasked = "has no effect without action: redact";

/** Detectors with the groups written out. */
export function expanded(names: readonly string[]): readonly string[] {
  return names.flatMap((one) => groups[one] ?? [one]);
}
