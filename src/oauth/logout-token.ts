/** Logout tokens (OpenID Connect Back-Channel Logout 1.0): an issuer says that a login has ended. */
import { BoundedMap } from "../bounded-map.ts";
import type { Clock } from "../duration.ts";
import { parseJsonObject } from "../http/json-access.ts";
import { KeysUnavailable } from "./jwks.ts";
import { signatureFault, signedParts, type VerificationKeys } from "./jwt-signature.ts";
import { digestOf, type SeenOnce, type SharedIds } from "./seen-once.ts";
import { type JwtRules, shown, type TokenParts } from "./token-checks.ts";
import { audienceOf, unverifiedClaims } from "./unverified-claims.ts";

/** Whose login has ended: of a session, of everything that a subject has, or both. */
export interface EndedLogin {
  readonly issuer: string;
  readonly subject?: string | undefined;
  readonly session?: string | undefined;
  /** Seconds since the epoch. */
  readonly at: number;
}

/** Whose login a token came from. */
export interface TokenOwner {
  readonly issuer?: string | undefined;
  readonly subject?: string | undefined;
  readonly session?: string | undefined;
}

/** What a logout token is. */
export type LogoutReading =
  | { readonly kind: "ended"; readonly login: EndedLogin }
  /** `cause` is a word of a closed set. */
  | { readonly kind: "refused"; readonly cause: string; readonly found?: string }
  | { readonly kind: "unavailable"; readonly reason: string };

/** How logout tokens are checked. */
export interface LogoutTerms {
  readonly keys: VerificationKeys;
  readonly rules: Pick<JwtRules, "algorithms" | "issuer" | "clockSkewMs">;
  /** The client ids that the issuer knows this agent by; undefined while none is known. */
  audiences(): readonly string[] | undefined;
  /** Ids of tokens that were used. */
  readonly seen: SeenOnce;
  /** The same of all replicas. */
  readonly shared?: SharedIds | undefined;
  readonly clock: Clock;
}

const event = "http://schemas.openid.net/event/backchannel-logout";
const longestToken = 16 * 1024;
const longestName = 1024;
/** How old a token may be where it has no `exp`, and at most where it has one: its id is remembered that long. */
const longestAgeMs = 10 * 60_000;
const leewayMs = 60_000;
const maxSeen = 10_000;

/** Checks a logout token and uses it up. */
export async function readLogoutToken(text: string, terms: LogoutTerms): Promise<LogoutReading> {
  const { keys, rules, clock } = terms;
  if (text.length > longestToken) return refused("malformed");
  // Nobody else's keys are looked for on the word of a stranger.
  const claimed = unverifiedClaims(text);
  if (claimed !== undefined && claimed.issuer !== rules.issuer) return refused("issuer_mismatch");
  let parts: TokenParts;
  try {
    parts = await signedParts(text, keys, rules, clock.now());
  } catch (error) {
    if (error instanceof KeysUnavailable) return { kind: "unavailable", reason: error.message };
    return refused(signatureFault(error, text, rules).cause);
  }
  return readClaims(parts, terms);
}

async function readClaims(
  { header, payload }: TokenParts,
  terms: LogoutTerms,
): Promise<LogoutReading> {
  const { rules } = terms;
  const { typ } = header;
  const type = typeof typ === "string" ? typ.toLowerCase().replace(/^application\//, "") : "jwt";
  if (type !== "jwt" && type !== "logout+jwt") return refused("type_mismatch", shown(typ));
  if (payload.iss !== rules.issuer) return refused("issuer_mismatch", shown(payload.iss));
  const audiences = terms.audiences();
  if (audiences === undefined) return { kind: "unavailable", reason: "no audience is known yet" };
  const audience = audienceOf(payload.aud);
  if (!audience.some((one) => audiences.includes(one))) {
    return refused("audience_mismatch", shown(audience.join(", ")));
  }
  const untimely = dateFault(payload, terms);
  if (untimely !== undefined) return refused(untimely);
  const { events, nonce, sub, sid, jti, iat = 0 } = payload;
  if (!isRecord(events) || !Object.hasOwn(events, event) || !isRecord(events[event])) {
    return refused("no_logout_event");
  }
  // An ID token has one, and could otherwise pass for a logout token.
  if (nonce !== undefined) return refused("has_nonce");
  const [subject, session] = [nameIn(sub), nameIn(sid)];
  if (subject === null || session === null) return refused("malformed");
  if (subject === undefined && session === undefined) return refused("no_subject");
  const id = nameIn(jti);
  if (typeof id !== "string") return refused("no_id");
  const used = await use(`${rules.issuer} ${id}`, terms);
  if (used === "used") return refused("replayed");
  if (used === "full") return { kind: "unavailable", reason: "too many logouts at once" };
  return { kind: "ended", login: { issuer: rules.issuer, subject, session, at: iat } };
}

async function use(id: string, { rules, seen, shared }: LogoutTerms) {
  const lifetimeMs = longestAgeMs + 2 * leewayOf(rules);
  const used = seen.use(id, { lifetimeMs, most: maxSeen });
  if (used !== "new" || shared === undefined) return used;
  return (await shared.take(digestOf(id), lifetimeMs)) ? used : "used";
}

function dateFault(
  { iat, exp }: TokenParts["payload"],
  { rules, clock }: LogoutTerms,
): string | undefined {
  const now = clock.now();
  const leeway = leewayOf(rules);
  if (typeof iat !== "number" || (exp !== undefined && typeof exp !== "number")) return "malformed";
  if (iat * 1_000 > now + leeway) return "issued_in_future";
  if (iat * 1_000 < now - longestAgeMs - leeway) return "expired";
  return exp !== undefined && exp * 1_000 <= now - leeway ? "expired" : undefined;
}

function leewayOf({ clockSkewMs }: LogoutTerms["rules"]): number {
  return Math.max(clockSkewMs, leewayMs);
}

/** A name of a subject or session; null for what is none. */
function nameIn(value: unknown): string | undefined | null {
  if (value === undefined) return undefined;
  return typeof value === "string" && value !== "" && value.length <= longestName ? value : null;
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function refused(cause: string, found?: string): LogoutReading {
  return { kind: "refused", cause, ...(found === undefined ? {} : { found }) };
}

/** Whether a token is of the login that has ended. One that names no session may be of any of its subject's. */
export function isOf(owner: TokenOwner, { issuer, subject, session }: EndedLogin): boolean {
  if (owner.issuer !== undefined && owner.issuer !== issuer) return false;
  if (session !== undefined && owner.session !== undefined) return owner.session === session;
  return subject !== undefined && owner.subject === subject;
}

/** An ended login as another replica told of it. */
export function endedLoginOf(text: string): EndedLogin | undefined {
  const value = parseJsonObject(text);
  const { issuer, at } = value ?? {};
  const [subject, session] = [nameIn(value?.["subject"]), nameIn(value?.["session"])];
  if (typeof issuer !== "string" || typeof at !== "number") return undefined;
  if (subject === null || session === null) return undefined;
  return { issuer, subject, session, at };
}

/** Ended logins that are remembered; beyond it the oldest is forgotten. */
const maxEnded = 100_000;

/** The logins of one issuer that have ended: a JWT of one is still signed, and must not be believed. */
export class EndedLogins {
  readonly #sessions = new BoundedMap<string, true>(maxEnded);
  /** When the last login of a subject ended that was told of without its session, and that of any. */
  readonly #subjects = new BoundedMap<string, { readonly all?: number; readonly any: number }>(
    maxEnded,
  );

  add({ subject, session, at }: EndedLogin): void {
    if (session !== undefined) this.#sessions.renew(session, true);
    if (subject === undefined) return;
    const before = this.#subjects.get(subject);
    const any = Math.max(before?.any ?? 0, at);
    const all = session === undefined ? Math.max(before?.all ?? 0, at) : before?.all;
    this.#subjects.renew(subject, { any, ...(all === undefined ? {} : { all }) });
  }

  /** Whether the token's login has ended; `issuedAt` in seconds, and a token without it may be of any time. */
  includes({ subject, session }: TokenOwner, issuedAt: number | undefined): boolean {
    if (session !== undefined && this.#sessions.has(session)) return true;
    const ended = subject === undefined ? undefined : this.#subjects.get(subject);
    if (ended === undefined) return false;
    const last = session === undefined ? ended.any : ended.all;
    return last !== undefined && (issuedAt === undefined || issuedAt <= last);
  }
}

/** When a token with these claims was issued, in seconds. */
export function issuedAtOf({ iat }: Readonly<Record<string, unknown>>): number | undefined {
  return typeof iat === "number" ? iat : undefined;
}

/** Whose login a token with these claims came from. */
export function ownerOf(claims: Readonly<Record<string, unknown>>): TokenOwner {
  const text = (claim: string): string | undefined => {
    const value = claims[claim];
    return typeof value === "string" ? value : undefined;
  };
  return { issuer: text("iss"), subject: text("sub"), session: text("sid") };
}
