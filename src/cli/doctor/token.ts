/** `doctor --token`: why the inbound pipeline of a file refuses one token. The token itself is printed nowhere. */
import { readGiven } from "../../files/given-file.ts";
import { JwksSource } from "../../oauth/jwks.ts";
import type { TokenFault, TokenFaultCause } from "../../oauth/token-checks.ts";
import { Audiences } from "../../plugins/jwt-validation/audiences.ts";
import { type JwtValidationConfig } from "../../plugins/jwt-validation/config.ts";
import { keyLocationOf } from "../../plugins/jwt-validation/key-location.ts";
import { keyCallOf } from "../../plugins/jwt-validation/key-call.ts";
import { verifierOf } from "../../plugins/jwt-validation/verifier.ts";
import { Secret } from "../../secret.ts";
import { type Finding, fail, pass, skip } from "./report.ts";
import type { Dependent, ServiceCheck } from "./services.ts";

const setKeys = "set jwks_url to the key set of the token's issuer, or get a token of this issuer";

/** What to do about each; the two values that were compared are printed before it. */
const remedies: Readonly<Record<TokenFaultCause, string>> = {
  malformed:
    "the file holds one signed JWT and nothing else: three parts with dots between (an opaque token is for the introspection endpoint alone)",
  algorithm_not_allowed: "sign with one of these, or add the algorithm to algorithms",
  unknown_key: setKeys,
  bad_signature: setKeys,
  type_mismatch: "set token_type to what the issuer writes, or leave it out",
  issuer_mismatch:
    "set issuer to exactly what the token has, slash and all, if that is your issuer",
  audience_mismatch: "add the token's audience to allowed_audiences, or have the issuer add yours",
  no_expiry: "have the issuer set exp, or set require_exp: false",
  expired: "get a fresh token; if it is fresh, compare the clocks (clock_skew)",
  not_yet_valid: "compare the clocks of this machine and of the issuer (clock_skew)",
  issued_in_future: "compare the clocks of this machine and of the issuer (clock_skew)",
  not_access_token: "send the access token of the issuer's answer",
  bound_to_key:
    "have the issuer leave out the binding (cnf), or set bound_tokens: proof, so that clients prove the key",
  too_many_actors: "see why the token was passed on so often, or raise max_actors",
  inactive: "get a fresh token: the introspection endpoint does not know this one",
  logged_out: "get a fresh token: the login that it came from has ended",
  claim_mismatch: "have the issuer add the claim, or change required_claims",
  insufficient_scope: "ask the issuer for the scope, or change required_scopes",
};

const maxTokenBytes = 1_048_576;

/** The token of a file, with or without `Bearer` before it, or why it cannot be read. */
export async function tokenOf(path: string): Promise<Secret | string> {
  const bytes = await readGiven(path, maxTokenBytes);
  if (typeof bytes === "string") return `${path} ${bytes}`;
  const text = bytes.toString("utf8").trim();
  return new Secret(text.replace(/^(?:authorization: *)?bearer +/i, ""));
}

/** The checks of one plugin: of jwt-validation all that it does with a token, of others none. */
export function tokenChecks(dependent: Dependent, token: Secret): ServiceCheck[] {
  if (dependent.plugin !== "jwt-validation") return [];
  return [{ name: "token", run: () => examine(dependent, token) }];
}

async function examine(
  { instance, config, deps }: Dependent,
  token: Secret,
): Promise<readonly Finding[]> {
  // The assembler parsed the configuration with the schema of the plugin of this name.
  const own = config as JwtValidationConfig;
  const keys = new JwksSource({ location: keyLocationOf(own), clock: deps.clock });
  const audiences = new Audiences(own, deps);
  const verifier = verifierOf(own, deps, keys, { call: keyCallOf(deps) });
  const { faults, keysProblem } = await verifier.examine(token.reveal(), audiences.fixed);
  const findings: Finding[] = [];
  const ready = audiences.ready();
  if (ready !== true) findings.push(fail(ready, "set audience, or have audience_file written"));
  if (keysProblem !== undefined)
    findings.push(fail(`the signature was not checked: ${keysProblem}`, setKeys));
  for (const fault of faults) findings.push(fail(wordFault(fault), remedies[fault.cause]));
  if (findings.length === 0) findings.push(pass("every check passes"));
  if (audiences.fixed === undefined)
    findings.push(skip("the audience was not compared: it is each request's (per-host)"));
  return findings.map((finding) => ({ ...finding, text: `${instance}: ${finding.text}` }));
}

/** The token in words that fit a line. */
function wordFault({ cause, claim, expected, found }: TokenFault): string {
  const facts = [
    ...(expected === undefined ? [] : [`expected ${expected}`]),
    ...(found === undefined ? [] : [`found ${found}`]),
  ].join(", ");
  const what = claim === undefined ? cause : `${cause} (${claim})`;
  return facts === "" ? what : `${what}: ${facts}`;
}
