/** The configuration of egress-policy. What the lists and policies hold is read by policy/, which says it with places. */
import { z } from "zod";
import { hostItem, policyEntry } from "../../policy/file/schema.ts";
import { age, words } from "../config-values.ts";
import { guarded } from "../../yaml/empty-values.ts";

/** The published schema of a value that policy/ checks; made on demand. */
function shown(schema: z.ZodType): Readonly<Record<string, unknown>> {
  const { $schema: _, ...json } = z.toJSONSchema(schema, { io: "input" });
  return json;
}

const hosts = z
  .array(z.unknown())
  .max(10_000)
  .meta({
    get items() {
      return shown(hostItem);
    },
  })
  .optional();

/** The schema of `config` of an egress-policy entry. */
export const egressPolicyConfig = z
  .strictObject({
    policy_file: guarded(
      words()
        .optional()
        .describe(
          "Policy file in the OpenShell format. Read again when it changes; the last good content stays in use when the new one cannot be.",
        ),
    ),
    network_policies: guarded(
      z
        .record(z.string(), z.unknown())
        .meta({
          get additionalProperties() {
            return shown(policyEntry);
          },
        })
        .optional()
        .describe("Policy entries in the same format as in the file, in addition to those there."),
    ),
    allow: guarded(
      hosts.describe(
        'Hosts that are allowed: "host", "*.domain:443", or {host, port(s), methods, paths}. An empty list allows nothing. It speaks for hosts that no policy entry names.',
      ),
    ),
    deny: guarded(
      hosts.describe(
        "Hosts, or some requests to them, that are refused whatever else allows them.",
      ),
    ),
    empty_binaries: guarded(
      z
        .enum(["any", "deny"])
        .default("any")
        .describe(
          "Whom an entry without binaries admits. any: the endpoint is the gate. Default any.",
        ),
    ),
    unresolved_identity: guarded(
      z
        .enum(["sentinel", "deny"])
        .default("sentinel")
        .describe(
          "What a caller is that cannot be identified. sentinel: only entries without binaries admit it. Default sentinel.",
        ),
    ),
    enforcement_default: guarded(
      z
        .enum(["audit", "enforce"])
        .default("audit")
        .describe(
          "What an endpoint without enforcement does with a violation: record it, or refuse. Default audit, as the file format has it.",
        ),
    ),
    head_matches_get: guarded(
      z.boolean().default(true).describe("A rule for GET also selects HEAD. Default true."),
    ),
    missing_after: age()
      .optional()
      .describe(
        "How long the policy file may be missing before the proxy is not ready. Default 60s.",
      ),
  })
  .superRefine((config, context) => {
    const issue = (path: string[], message: string): void =>
      context.addIssue({ code: "custom", path, message });
    const keys = ["policy_file", "network_policies", "allow", "deny"] as const;
    if (keys.every((key) => config[key] === undefined))
      return issue([], `needs one of ${keys.join(", ")}`);
    const { policy_file: file, network_policies: inline } = config;
    if (file === undefined && config.missing_after !== undefined)
      issue(["missing_after"], "has no effect without policy_file");
    if (file === undefined && inline === undefined && config.empty_binaries === "deny")
      issue(["empty_binaries"], "has no effect on allow and deny: only entries have binaries");
  });

/** A checked configuration. */
export type EgressPolicyConfig = z.output<typeof egressPolicyConfig>;
