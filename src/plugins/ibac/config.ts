/** The configuration of ibac, with the keys and defaults of the Go program and those added since. */
import { z } from "zod";
import {
  bypassHosts,
  bypassPaths,
  defaultBypassHosts,
  serviceUrl,
  words,
  orDefault,
} from "../config-values.ts";
import { secretValue } from "../credentials/secret-config.ts";

const whole = (least: number, most: number): z.ZodNumber => z.int().min(least).max(most);

/** The schema of `config` of an ibac entry. */
export const ibacConfig = z
  .strictObject({
    judge_endpoint: serviceUrl().describe(
      "Base address of the judge, which speaks the chat completions API of OpenAI at /v1/chat/completions.",
    ),
    judge_model: words().describe("Model that judges."),
    judge_bearer: secretValue
      .optional()
      .describe(
        "Bearer token for the judge: a text, or the source that it comes from, by its `type`.",
      ),
    judge_bearer_file: words()
      .optional()
      .describe("File with the bearer token for the judge, read at every call."),
    system_prompt: words().optional().describe("Replaces the judge's instructions."),
    timeout_ms: orDefault(whole(100, 600_000), 5_000).describe(
      "Until the verdict is there, waiting for a free place included.",
    ),
    judge_max_tokens: orDefault(whole(64, 100_000), 1_024).describe("Longest answer of the judge."),
    judge_json_mode: z
      .boolean()
      .default(true)
      .describe("Ask the judge for a JSON object (response_format)."),
    judge_inference: z
      .boolean()
      .default(false)
      .describe("Judge the agent's own calls of language models as well."),
    agent_llm_host: words()
      .optional()
      .describe(
        "Host of the agent's own language model, which is not judged. Calls of language models on other hosts then are, whatever judge_inference says.",
      ),
    bypass_hosts: bypassHosts().describe(
      `Destinations that are not judged; a star crosses dots. Default: ${defaultBypassHosts.join(", ")}.`,
    ),
    bypass_paths: bypassPaths().describe("Paths that are not judged."),
    no_intent_policy: z
      .enum(["allow", "deny"])
      .default("allow")
      .describe("What happens to an action that no user asked for."),
    unclassified_policy: z
      .enum(["passthrough", "judge"])
      .default("passthrough")
      .describe("What happens to a request that no parser recognised."),
    max_action_chars: whole(512, 1_000_000)
      .default(32_768)
      .describe("Longest action that is judged; a longer one is refused, never judged in part."),
    max_concurrency: whole(1, 1_000)
      .default(8)
      .describe("Calls of the judge at a time; sixteen times as many may wait."),
    cache_ttl_ms: whole(0, 3_600_000)
      .default(60_000)
      .describe(
        "How long a verdict on the same action for the same intent is kept; 0: not at all.",
      ),
  })
  .superRefine(({ judge_bearer: bearer, judge_bearer_file: file }, context) => {
    if (bearer === undefined || file === undefined) return;
    const message = "has no effect with judge_bearer";
    context.addIssue({ code: "custom", path: ["judge_bearer_file"], message });
  });

/** A checked configuration. */
export type IbacConfig = z.output<typeof ibacConfig>;
