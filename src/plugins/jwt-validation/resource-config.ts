/** The keys of `protected_resource`: the metadata of the agent (RFC 9728) that the proxy serves in its place. */
import { z } from "zod";
import { serviceUrl, words } from "../config-values.ts";

const address = () =>
  serviceUrl().refine((url) => /^[\x21\x23-\x5b\x5d-\x7e]+$/.test(url), {
    error: "must be written in visible ASCII without quotes and backslashes",
  });

/** The schema of `protected_resource`. */
export const resourceConfig = z.strictObject({
  resource: address()
    .refine((url) => !/[?#]/.test(url), { error: "must have no query and no fragment" })
    .describe(
      "The agent's address as clients know it, such as https://agent.example.com/mcp: its resource identifier. The metadata is served below /.well-known/oauth-protected-resource of its host, with and without its path.",
    ),
  authorization_servers: z
    .array(address())
    .min(1)
    .max(64)
    .optional()
    .describe("Issuers that clients get tokens from. Default: issuer."),
  scopes_supported: z
    .array(words())
    .max(1_000)
    .optional()
    .describe("Scopes that clients may ask for. Default: required_scopes."),
  bearer_methods_supported: z
    .array(z.enum(["header"]))
    .max(1)
    .default(["header"])
    .describe("How tokens are sent; the Authorization field is the only way that is taken."),
  tls_client_certificate_bound_access_tokens: z
    .boolean()
    .optional()
    .describe(
      "Whether tokens that are bound to a client certificate can be used. Default: true where bound_tokens is proof.",
    ),
  resource_name: words().optional().describe("A name for people."),
  resource_documentation: address().optional().describe("Address of documentation for people."),
  resource_policy_uri: address().optional().describe("Address of the policy on data."),
  resource_tos_uri: address().optional().describe("Address of the terms of service."),
});

/** What is wrong with the keys for clients that have no token yet. */
export function tokenlessProblems(config: {
  readonly issuer: string;
  readonly cors?: object | undefined;
  readonly cors_preflight: "deny" | "pass";
  readonly protected_resource?: z.output<typeof resourceConfig> | undefined;
}) {
  const { issuer, cors, cors_preflight: preflight, protected_resource: own } = config;
  const problems: { readonly path: string[]; readonly message: string }[] = [];
  if (cors !== undefined && preflight === "pass") {
    const message = "cannot be combined with cors: write cors.preflight: pass";
    problems.push({ path: ["cors_preflight"], message });
  }
  const needsServers = own !== undefined && own.authorization_servers === undefined;
  if (needsServers && !/^https?:/.test(issuer)) {
    const path = ["protected_resource", "authorization_servers"];
    problems.push({ path, message: "is required: the issuer is no address" });
  }
  return problems;
}
