import { describe, expect, test } from "vitest";
import { type RefusalMeaning, understandRefusal } from "../../../src/oauth/refusal-meaning.ts";

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
