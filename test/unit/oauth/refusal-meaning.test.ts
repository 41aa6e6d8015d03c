import { describe, expect, test } from "vitest";
import type { RefusalMeaning } from "../../../src/oauth/refusal-kind.ts";
import { understandRefusal } from "../../../src/oauth/refusal-meaning.ts";

const aadsts = (number: string, text: string): string =>
  `AADSTS${number}: ${text} Trace ID: 0 Correlation ID: 0 Timestamp: 2026-01-09 02:02:12Z`;

type Row = readonly [number, string | undefined, string | undefined, RefusalMeaning];

const rows: readonly Row[] = [
  [400, "invalid_grant", undefined, "caller-token"],
  [400, "invalid_token", "Invalid token", "caller-token"],
  [400, "invalid_request", undefined, "caller-token"],
  [400, "invalid_request", "Invalid token", "caller-token"],
  [400, "invalid_request", "Requested audience not available: archive", "caller-right"],
  [403, "access_denied", "Client is not within the token audience", "caller-right"],
  [400, "invalid_target", undefined, "caller-right"],
  [400, "invalid_scope", "Invalid scopes: write", "caller-right"],
  [
    400,
    "invalid_request",
    "Standard token exchange is not enabled for the requested client",
    "registration",
  ],
  [403, "access_denied", "Client not allowed to exchange", "registration"],
  [400, "invalid_client", "Audience not found", "registration"],
  [400, "invalid_client", "Client disabled", "registration"],
  [400, "invalid_client", "client_id parameter does not match sub claim", "registration"],
  [400, "invalid_request", "Public client is not allowed to exchange token", "registration"],
  [
    400,
    "invalid_request",
    "Parameter 'subject_token_type' supports access tokens only",
    "registration",
  ],
  [401, "invalid_client", "Invalid client or Invalid client credentials", "registration"],
  [401, "unauthorized_client", "Invalid client or Invalid client credentials", "registration"],
  [400, "unauthorized_client", "Client not enabled to retrieve service account", "registration"],
  [403, "unauthorized_client", undefined, "registration"],
  [400, "unsupported_grant_type", "Unsupported grant_type", "registration"],
  [401, undefined, undefined, "registration"],
  [401, "odd", "Requested audience not available", "registration"],
  [404, undefined, undefined, "registration"],
  [405, undefined, undefined, "registration"],
  [400, "temporarily_unavailable", undefined, "provider"],
  [400, "server_error", undefined, "provider"],
  [429, undefined, undefined, "provider"],
  [429, "invalid_request", undefined, "provider"],
  [400, undefined, undefined, "provider"],
  [400, "odd", undefined, "provider"],
  // Entra ID.
  [401, "invalid_client", aadsts("7000215", "Invalid client secret provided."), "registration"],
  [
    401,
    "invalid_client",
    aadsts("7000222", "The provided client secret keys are expired."),
    "registration",
  ],
  [
    401,
    "invalid_client",
    aadsts("700027", "Client assertion failed signature validation."),
    "registration",
  ],
  [
    401,
    "invalid_client",
    aadsts("70021", "No matching federated identity record found."),
    "registration",
  ],
  [
    400,
    "unauthorized_client",
    aadsts("700016", "Application was not found in the directory."),
    "registration",
  ],
  [400, "invalid_request", aadsts("90002", "Tenant 'x' not found."), "registration"],
  [
    400,
    "invalid_resource",
    aadsts("500011", "The resource principal was not found."),
    "registration",
  ],
  [
    400,
    "invalid_request",
    aadsts("500011", "The resource principal was not found."),
    "registration",
  ],
  [400, "invalid_resource", undefined, "registration"],
  [
    400,
    "invalid_scope",
    aadsts("70011", "The provided value for scope is not valid."),
    "registration",
  ],
  [400, "unsupported_grant_type", aadsts("70003", "unsupported grant type."), "registration"],
  [
    400,
    "invalid_grant",
    aadsts("65001", "The user or administrator has not consented."),
    "registration",
  ],
  [400, "consent_required", undefined, "registration"],
  [400, "invalid_grant", aadsts("500131", "Assertion audience does not match."), "caller-token"],
  [400, "invalid_grant", aadsts("50013", "Assertion failed signature validation."), "caller-token"],
  [
    400,
    "invalid_grant",
    aadsts("500133", "Assertion is not within its valid time range."),
    "caller-token",
  ],
  [
    400,
    "interaction_required",
    aadsts("50076", "you must use multi-factor authentication."),
    "caller-token",
  ],
  [
    400,
    "invalid_grant",
    aadsts("50105", "The signed in user is not assigned to a role."),
    "caller-right",
  ],
  [400, "interaction_required", aadsts("53003", "Access has been blocked."), "caller-right"],
  [400, "invalid_grant", aadsts("70002", "Error. AADSTS65001: not consented."), "registration"],
  [400, "invalid_grant", aadsts("999999", "Something new."), "caller-token"],
  [400, "invalid_grant", "said AADSTS65001", "caller-token"],
  // Auth0.
  [401, "access_denied", "Unauthorized", "registration"],
  [403, "access_denied", "Service not enabled within domain: https://api.example", "registration"],
  [
    403,
    "access_denied",
    'Client is not authorized to access "https://api.example".',
    "registration",
  ],
  [
    403,
    "access_denied",
    'Client "[cut]" is not authorized to access resource server "x".',
    "registration",
  ],
  [
    403,
    "unauthorized_client",
    "Grant type 'client_credentials' not allowed for the client.",
    "registration",
  ],
  [403, "access_denied", undefined, "caller-right"],
  // Okta.
  [
    400,
    "access_denied",
    "Policy evaluation failed for this request, please check the policy configurations.",
    "caller-right",
  ],
  [
    401,
    "invalid_client",
    "The client secret supplied for a confidential client is invalid.",
    "registration",
  ],
  // ZITADEL.
  [400, "invalid_request", "subject_token invalid", "caller-token"],
  [400, "invalid_request", "actor_token invalid", "registration"],
  [400, "invalid_target", 'audience "x" not found in subject or actor token', "caller-right"],
  [400, "invalid_target", "resource parameter not supported", "registration"],
  // PingFederate.
  [401, "invalid_client", "Invalid client or client credentials.", "registration"],
];

describe("a refusal", () => {
  test.each(rows)("%i %s %j means %4$s", (status, error, description, meaning) => {
    const refused = {
      kind: "rejected",
      status,
      ...(error === undefined ? {} : { error }),
      ...(description === undefined ? {} : { description }),
    } as const;
    expect(understandRefusal(refused, "token-exchange").meaning).toBe(meaning);
    const own = understandRefusal(refused, "client-credentials").meaning;
    expect(own).toBe(meaning === "caller-token" ? "registration" : meaning);
  });

  test("with a code of the endpoint's own does not repeat it", () => {
    expect(
      understandRefusal({ kind: "rejected", status: 400, error: "x" }, "token-exchange"),
    ).toEqual({ meaning: "provider" });
  });

  test.each([
    ["invalid_client", aadsts("7000215", "Invalid client secret provided."), /client secret/],
    ["invalid_grant", aadsts("65001", "not consented."), /consent/],
    ["unauthorized_client", aadsts("700016", "not found."), /client_id.*token_url/],
    ["invalid_grant", aadsts("500131", "audience."), /client_id/],
    ["access_denied", "Service not enabled within domain: x", /target_audience/],
    ["access_denied", "Policy evaluation failed for this request", /access policy/],
  ])("%s %s says what to change", (error, description, remedy) => {
    const refused = { kind: "rejected", status: 400, error, description } as const;
    expect(understandRefusal(refused, "token-exchange").remedy).toMatch(remedy);
  });

  test("of the own client says what to change", () => {
    const description = "Standard token exchange is not enabled for the requested client";
    const refused = {
      kind: "rejected",
      status: 400,
      error: "invalid_request",
      description,
    } as const;
    expect(understandRefusal(refused, "token-exchange").remedy).toMatch(/Standard Token Exchange/);
  });
});
