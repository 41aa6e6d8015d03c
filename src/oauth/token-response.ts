/** What a token endpoint said: a token, a refusal, or nothing that can be used. */
import { Secret } from "../secret.ts";
import type { OperatorResponse } from "../http/operator-fetch.ts";
import { parseJsonObject } from "../http/json-access.ts";

/** A token that the endpoint issued. */
export interface IssuedToken {
  readonly kind: "issued";
  readonly token: Secret;
  /** Milliseconds since the epoch, from the response's `expires_in`; absent when it had none. */
  readonly expiresAt?: number;
  readonly scope?: string;
  /** RFC 6749 section 6: takes the place of the one that was sent. */
  readonly refreshToken?: Secret;
}

/** The endpoint understood the request and refused it: a 4xx response. */
export interface RejectedGrant {
  readonly kind: "rejected";
  readonly status: number;
  /** The OAuth error code as the endpoint wrote it, for the operator's log only. */
  readonly error?: string;
  /** At most 200 printable characters without anything that could be a token, for the operator's log only. */
  readonly description?: string;
}

/** There was no response that can be used; `reason` is made of this program's own words. */
export interface UnavailableEndpoint {
  readonly kind: "unavailable";
  readonly reason: string;
}

/** The outcome of one call. */
export type TokenResponse = IssuedToken | RejectedGrant | UnavailableEndpoint;

/** Longest access token that is taken: it has to fit a header field of any origin. */
const longestToken = 64 * 1024;
const longestDescription = 200;
/** RFC 6749 section 5.2: %x20-21 / %x23-5B / %x5D-7E. */
const errorCode = /^[\x20\x21\x23-\x5b\x5d-\x7e]{1,64}$/;
/** RFC 6749 appendix A.12: an access token is visible ASCII; a space would split the header value. */
const visible = /^[\x21-\x7e]+$/;

/** RFC 9449 section 8: the endpoint wants the nonce that this response carries. */
export function isNonceRequest({ status, body }: OperatorResponse): boolean {
  if (status !== 400 && status !== 401) return false;
  return parseJsonObject(body.toString("utf8"))?.["error"] === "use_dpop_nonce";
}

/** Reads a response. `sentAt` is when the request left, so that the lifetime is never counted too long; a bound token was asked for where `isBound`. */
export function readTokenResponse(
  response: OperatorResponse,
  sentAt: number,
  isBound = false,
): TokenResponse {
  const { status } = response;
  if (status >= 400 && status < 500) return readRejection(response);
  if (status !== 200) return unavailable(`answered ${status}`);
  const fields = parseJsonObject(response.body.toString("utf8"));
  if (fields === undefined) return unavailable("answered with something that is not a JSON object");
  const { access_token: token, scope } = fields;
  // Servers of the field write null for what they leave out, and numbers as text.
  const type = fields["token_type"] ?? undefined;
  const issued = fields["issued_token_type"] ?? undefined;
  const expiresIn = lifetimeOf(fields["expires_in"] ?? undefined);
  if (typeof token !== "string" || token === "") {
    return unavailable("answered without an access_token");
  }
  if (token.length > longestToken || !visible.test(token)) {
    return unavailable("answered with an access_token that cannot stand in a header");
  }
  const otherType = isBound ? unboundType(type) : unusableType(type);
  if (otherType !== undefined) return unavailable(otherType);
  if (issued !== undefined && typeof issued !== "string") {
    return unavailable("answered with a malformed issued_token_type");
  }
  if (expiresIn === "unusable") {
    return unavailable("answered with an expires_in that is not a positive number");
  }
  return {
    kind: "issued",
    token: new Secret(token),
    ...(expiresIn === undefined ? {} : { expiresAt: sentAt + expiresIn * 1000 }),
    ...(typeof scope === "string" ? { scope } : {}),
    ...refreshTokenOf(fields["refresh_token"]),
  };
}

/** RFC 6749 appendix A.17. */
function refreshTokenOf(value: unknown): Pick<IssuedToken, "refreshToken"> {
  if (typeof value !== "string" || value.length > longestToken) return {};
  return /^[\x20-\x7e]+$/.test(value) ? { refreshToken: new Secret(value) } : {};
}

function unavailable(reason: string): UnavailableEndpoint {
  return { kind: "unavailable", reason };
}

/** The Go program does not look at token_type; bound tokens that nobody asked for would fail at the origin. */
function unusableType(type: unknown): string | undefined {
  // RFC 8693 section 2.2.1: N_A where the issued token is not an access token.
  const isUsable = type === undefined || isType(type, "bearer") || type === "N_A";
  return isUsable ? undefined : "answered with a token_type that is not Bearer";
}

/** RFC 9449 section 5: a token of another type is bound to nothing. */
function unboundType(type: unknown): string | undefined {
  return isType(type, "dpop")
    ? undefined
    : "issued a token that is not bound to the proxy's key (dpop)";
}

function isType(type: unknown, wanted: "bearer" | "dpop"): boolean {
  return typeof type === "string" && type.toLowerCase() === wanted;
}

/** Seconds from a number or from its decimal text; undefined when there is none. */
function lifetimeOf(value: unknown): number | "unusable" | undefined {
  if (value === undefined) return undefined;
  const isText = typeof value === "string" && /^\d{1,15}(?:\.\d{1,9})?$/.test(value);
  const seconds = isText ? Number(value) : value;
  const isUsable = typeof seconds === "number" && Number.isFinite(seconds) && seconds > 0;
  return isUsable ? seconds : "unusable";
}

function readRejection(response: OperatorResponse): RejectedGrant {
  const fields = parseJsonObject(response.body.toString("utf8")) ?? {};
  const { error, error_description: description } = fields;
  return {
    kind: "rejected",
    status: response.status,
    ...(typeof error === "string" && errorCode.test(error) ? { error: withoutTokens(error) } : {}),
    ...(typeof description === "string" ? { description: withoutTokens(description) } : {}),
  };
}

/** A server may quote the token or the secret that it refused: long runs of token characters are taken out. */
export function withoutTokens(text: string): string {
  return text
    .slice(0, 4 * longestDescription)
    .replace(/[\w\-.~+/=]{24,}/g, "[cut]")
    .replace(/[^\x20-\x7e]/g, "?")
    .slice(0, longestDescription);
}
