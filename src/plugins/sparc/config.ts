/** The configuration of sparc, with the keys and defaults of the Go program and those added since. */
import { z } from "zod";
import {
  bypassHosts,
  bypassPaths,
  defaultBypassHosts,
  serviceUrl,
  toolGlob,
  words,
} from "../config-values.ts";
import { secretValue } from "../credentials/secret-config.ts";

const toolGlobs = (): z.ZodDefault<z.ZodArray<z.ZodString>> =>
  z.array(toolGlob()).max(1_000).default([]);

const whole = (least: number, most: number): z.ZodNumber => z.int().min(least).max(most);

/** What `timeout_ms: 0` means, as in the Go program. */
export const defaultTimeoutMs = 30_000;

/** The schema of `config` of a sparc entry. */
export const sparcConfig = z
  .strictObject({
    reflector_endpoint: serviceUrl().describe(
      "Base address of the reflection service, which is asked at /reflect.",
    ),
    reflector_bearer: secretValue
      .optional()
      .describe(
        "Bearer token for the reflection service: a text, or the source that it comes from, by its `type`.",
      ),
    reflector_bearer_file: words()
      .optional()
      .describe("File with the bearer token for the reflection service, read at every call."),
    enforcement: z
      .enum(["mcp", "inference"])
      .default("mcp")
      .describe(
        "What is judged: mcp, the calls of MCP tools; inference, the tool calls that language models ask for.",
      ),
    track: z
      .enum(["fast_track", "slow_track", "syntax", "spec_free", "transformations_only"])
      .default("fast_track")
      .describe("Which checks the service makes."),
    timeout_ms: whole(0, 600_000)
      .refine((value) => value === 0 || value >= 100, { error: "must be at least 100" })
      .default(defaultTimeoutMs)
      .describe(
        "Until the verdict is there, waiting for a free place included. 0 means the default, 30000.",
      ),
    on_reject_action: z
      .enum(["reflect", "observe", "deny"])
      .default("reflect")
      .describe(
        "What becomes of a call that is not grounded: reflect, the agent reads why; deny, it is refused; observe, it is recorded and passes.",
      ),
    deny_score_threshold: z
      .number()
      .min(0)
      .max(1)
      .default(0)
      .describe(
        "A rejected call whose score is not above this is refused in any case. 0: none is.",
      ),
    fail_policy: z
      .enum(["open", "closed"])
      .default("open")
      .describe(
        "What becomes of a call that cannot be judged, because the service is down or the conversation is not known.",
      ),
    skip_tools: toolGlobs().describe(
      "Tools that are not judged; globs, asked before reflect_tools.",
    ),
    reflect_tools: toolGlobs().describe("The only tools that are judged; empty: every one."),
    bypass_hosts: bypassHosts().describe(
      `Destinations that are not judged; a star crosses dots. Default: ${defaultBypassHosts.join(", ")}.`,
    ),
    bypass_paths: bypassPaths().describe("Paths that are not judged."),
    max_concurrency: whole(1, 1_000)
      .default(8)
      .describe("Calls of the service at a time; sixteen times as many may wait."),
    cache_ttl_ms: whole(0, 3_600_000)
      .default(60_000)
      .describe(
        "How long a verdict on the same call in the same conversation is kept; 0: not at all.",
      ),
  })
  .superRefine(({ reflector_bearer: bearer, reflector_bearer_file: file }, context) => {
    if (bearer === undefined || file === undefined) return;
    const message = "has no effect with reflector_bearer";
    context.addIssue({ code: "custom", path: ["reflector_bearer_file"], message });
  });

/** A checked configuration. */
export type SparcConfig = z.output<typeof sparcConfig>;
