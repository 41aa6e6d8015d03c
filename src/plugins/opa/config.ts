/** The configuration of opa: the Go program's keys, and where else a policy may come from. */
import { z } from "zod";
import { jwsAlgorithms } from "../../opa/jws.ts";
import { compilePathGlob } from "../../pattern/path-pattern.ts";
import { duration, serviceUrl, words } from "../config-values.ts";
import { defaultClientIdFile } from "../credentials/client-identity-config.ts";
import { secretValue } from "../credentials/secret-config.ts";
import { guarded } from "../../yaml/empty-values.ts";

const defaultMinDelay = 10;
const defaultMaxDelay = 120;

/** Parts of the input that are left out unless they are asked for. */
const includeKeys: readonly string[] = [
  "a2a.content",
  "mcp.params",
  "mcp.result",
  "mcp.error",
  "inference.tools.detail",
  "inference.messages",
  "inference.completion",
  "inference.tool_calls",
];

const verificationKey = z
  .strictObject({
    algorithm: z
      .enum(jwsAlgorithms)
      .default("RS256")
      .describe("How bundles are signed with this key. Default RS256, as OPA signs."),
    key: words()
      .optional()
      .describe("The public key in PEM; for HS256, HS384 and HS512 the shared secret."),
    key_file: words()
      .optional()
      .describe("File with the same, read whenever a bundle is verified."),
    scope: z
      .string()
      .optional()
      .describe("What the scope of signatures by this key has to be. Default: they have none."),
  })
  .superRefine(({ key, key_file: file }, context) => {
    if ((key === undefined) !== (file === undefined)) return;
    context.addIssue({ code: "custom", message: "needs one of key and key_file" });
  });

const verification = z
  .strictObject({
    keys: z
      .record(z.string().min(1), verificationKey)
      .refine((keys) => Object.keys(keys).length > 0, { error: "names no key" })
      .describe("Keys by their ids, which signatures name."),
    keyid: guarded(
      words().optional().describe("The only key that counts, whatever a signature names."),
    ),
    scope: guarded(
      z
        .string()
        .optional()
        .describe("What the scope of every signature has to be, instead of that of its key."),
    ),
    exclude_files: z
      .array(z.string().refine((pattern) => isGlob(pattern), { error: "is not a glob" }))
      .max(1_000)
      .default([])
      .describe("Files of bundles that need no digest in the signature; globs."),
  })
  .superRefine(({ keys, keyid }, context) => {
    if (keyid === undefined || Object.hasOwn(keys, keyid)) return;
    context.addIssue({ code: "custom", path: ["keyid"], message: "is not an id of keys" });
  });

function isGlob(pattern: string): boolean {
  try {
    compilePathGlob(pattern);
    return true;
  } catch {
    return false;
  }
}

const engines = ["bundle_url", "bundle_path", "server_url"] as const;

/** The schema of `config` of an opa entry. */
export const opaConfig = z
  .strictObject({
    bundle_url: serviceUrl()
      .optional()
      .describe(
        "Server with a bundle of policy.wasm, or of Rego with compiler. It is asked for bundle_resource until there is one, and then for changes.",
      ),
    bundle_resource: words()
      .optional()
      .describe(
        "Path of the bundle below bundle_url. Default: bundles?spiffe=ID, with the agent's id without spiffe://.",
      ),
    bundle_path: words()
      .optional()
      .describe(
        "Bundle on disk: a tar.gz or a folder, with policy.wasm, or Rego with compiler. Read again when it changes; the last good one stays in use.",
      ),
    redirect_origins: z
      .array(serviceUrl())
      .max(16)
      .default([])
      .describe(
        "Origins besides that of bundle_url to which it may redirect, such as that of an object store. The token is not sent there.",
      ),
    compiler: z
      .string()
      .regex(/^\//, { error: "must be an absolute path" })
      .optional()
      .describe(
        "Path of an opa program that compiles bundles of Rego source; without it they are refused.",
      ),
    verification: guarded(
      verification
        .optional()
        .describe("Who may have signed bundles; set, a bundle that is not signed is refused."),
    ),
    server_url: z
      .string()
      .regex(/^(?:https?:\/\/[^\s]+|unix:\/\/\/[^\s:]+)$/, {
        error: "must be an http:// or https:// address, or unix:///path/of/the/socket",
        abort: true,
      })
      .refine((text) => URL.canParse(text), { error: "is not a valid address" })
      .optional()
      .describe("OPA server that is asked over its REST data API, http(s)://… or unix:///…."),
    agent_id: words().optional().describe("Id of the agent, for bundle_resource and input.agent."),
    agent_id_file: words()
      .optional()
      .describe(
        `File with the agent's id, read again when it changes. Default for bundle_url: ${defaultClientIdFile}.`,
      ),
    polling_min_delay: z
      .number()
      .min(0)
      .default(defaultMinDelay)
      .describe("Least seconds between two questions to bundle_url. 0 means the default, 10."),
    polling_max_delay: z
      .number()
      .min(0)
      .default(defaultMaxDelay)
      .describe("Most seconds between two questions to bundle_url. 0 means the default, 120."),
    include: z
      .array(
        z.string().refine((key) => includeKeys.includes(key) || /^mcp\.params\.[^.]+$/.test(key), {
          error: `must be one of ${includeKeys.join(", ")}, or mcp.params.NAME`,
        }),
      )
      .default([])
      .describe(`Heavy parts of the input: ${includeKeys.join(", ")}, or mcp.params.NAME.`),
    on_undefined: guarded(
      z
        .enum(["allow", "deny"])
        .default("allow")
        .describe(
          "What a message is for which the policy defines no decision. Default allow, as in the Go program.",
        ),
    ),
    decision_timeout: duration()
      .default("1s")
      .describe("Until the decision is there; later the message is refused. Default 1s."),
    bearer_token: secretValue
      .optional()
      .describe(
        "Token that bundle_url or server_url wants: a text, or the source that it comes from, by its `type`. As bearer_token_file.",
      ),
    bearer_token_file: words()
      .optional()
      .describe(
        "File with a token that bundle_url or server_url wants, read again when it changes. Only over https, to loopback or to a socket.",
      ),
    decision_log: z
      .strictObject({
        enabled: z.boolean().default(true).describe("One log line per decision. Default true."),
        include: z
          .array(z.enum(["headers"]))
          .default([])
          .describe("headers: the request's fields, without credentials."),
      })
      .prefault({})
      .describe("What is logged of each decision."),
  })
  .superRefine((config, context) => {
    const problem = (key: string, message: string): void =>
      context.addIssue({ code: "custom", path: [key], message });
    const named = engines.filter((key) => config[key] !== undefined);
    if (named.length === 0) {
      context.addIssue({
        code: "custom",
        message: "bundle_url is required (or bundle_path, or server_url)",
      });
    } else if (named.length > 1) {
      problem(named[1] ?? "", `is another engine than ${named[0]}: keep one of them`);
    }
    if (config.bundle_resource !== undefined && config.bundle_url === undefined) {
      problem("bundle_resource", "has no effect without bundle_url");
    }
    if (config.redirect_origins.length > 0 && config.bundle_url === undefined) {
      problem("redirect_origins", "has no effect without bundle_url");
    }
    for (const key of ["compiler", "verification"] as const) {
      if (config[key] !== undefined && config.server_url !== undefined) {
        problem(key, "has no effect with server_url");
      }
    }
    const { minSeconds, maxSeconds } = pollingOf(config);
    if (maxSeconds < minSeconds) {
      problem("polling_max_delay", `must be at least polling_min_delay (${minSeconds})`);
    }
    const tokens = (["bearer_token", "bearer_token_file"] as const).filter(
      (key) => config[key] !== undefined,
    );
    const [key] = tokens;
    if (key === undefined) return;
    if (tokens.length > 1) problem("bearer_token_file", "has no effect with bearer_token");
    const url = config.server_url ?? config.bundle_url;
    if (url === undefined) {
      problem(key, "has no effect without bundle_url or server_url");
    } else if (!keepsSecrets(url)) {
      problem(key, "would be sent in the clear: use https");
    }
  });

/** A checked configuration. */
export type OpaConfig = z.output<typeof opaConfig>;

/** The delays that are meant, in seconds. */
export function pollingOf(config: {
  readonly polling_min_delay: number;
  readonly polling_max_delay: number;
}): { readonly minSeconds: number; readonly maxSeconds: number } {
  return {
    minSeconds: config.polling_min_delay > 0 ? config.polling_min_delay : defaultMinDelay,
    maxSeconds: config.polling_max_delay > 0 ? config.polling_max_delay : defaultMaxDelay,
  };
}

function keepsSecrets(url: string): boolean {
  if (!url.startsWith("http://")) return true;
  const { hostname } = new URL(url);
  return hostname === "localhost" || hostname === "[::1]" || /^127(?:\.\d+){3}$/.test(hostname);
}
