/** JWT-SVIDs of this workload by audience, each until half of its life is over. */
import { BoundedMap } from "../../bounded-map.ts";
import { type Clock, passingClock } from "../../duration.ts";
import { messageOf, ProxyError } from "../../errors.ts";
import { unverifiedClaims } from "../../oauth/unverified-claims.ts";
import { Secret } from "../../secret.ts";
import type { JwtSource, JwtSvid } from "../jwt-source.ts";
import { parseSpiffeId } from "../spiffe-id.ts";
import { shown } from "../x509-svid.ts";
import { type AgentOptions, usualAnswerMs } from "./agent.ts";
import { callAgent } from "./agent-call.ts";
import { BackOff } from "./back-off.ts";
import { type RawJwtSvid, readJwtResponse, writeJwtRequest } from "./messages.ts";

/** Audiences are words of the file; a bound costs nothing. */
const maxAudiences = 256;
/** Header fields and forms have to carry it. */
const maxTokenLength = 16_384;

/** Between two fetches, where the agent gives the same token again. */
const shortestMs = 1_000;

/** What is known of one audience. */
interface Entry {
  readonly backOff: BackOff;
  svid?: JwtSvid;
  /** Milliseconds since the epoch: between the two the token is young. */
  fetchedAt: number;
  renewAt: number;
  fetching?: Promise<JwtSvid>;
  problem?: ProxyError;
  /** By {@link passingClock}: until then the agent is not asked again. */
  retryAt: number;
}

/** Fetches from the agent when somebody asks; callers of one audience share the fetch. */
export class JwtTokens implements JwtSource {
  readonly #options: AgentOptions;
  readonly #passing: Clock;
  readonly #entries = new BoundedMap<string, Entry>(maxAudiences);
  readonly #closing = new AbortController();

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#passing = passingClock(options.clock);
  }

  async token(audience: string): Promise<JwtSvid> {
    const entry = this.#entry(audience);
    const now = this.#options.clock.now();
    const { svid } = entry;
    if (isUsable(svid, now) && now >= entry.fetchedAt && now < entry.renewAt) return svid;
    if (entry.fetching === undefined && this.#passing.now() < entry.retryAt) {
      if (isUsable(svid, now)) return svid;
      if (entry.problem !== undefined) throw entry.problem;
    }
    try {
      return await this.#fetch(audience, entry);
    } catch (error) {
      // The agent may be on its way back, and what is at hand is still good.
      if (isUsable(svid, this.#options.clock.now())) return svid;
      throw error;
    }
  }

  notReady(audience: string): string | undefined {
    const entry = this.#entry(audience);
    const now = this.#options.clock.now();
    const mayAsk = entry.fetching === undefined && this.#passing.now() >= entry.retryAt;
    const isWanted = !isYoung(entry, now) && mayAsk;
    if (isWanted) void this.#fetch(audience, entry).catch(() => undefined);
    if (isUsable(entry.svid, now)) return undefined;
    return entry.problem?.message ?? `the agent has not sent a JWT-SVID for ${shown(audience)} yet`;
  }

  close(): void {
    this.#closing.abort();
  }

  #entry(audience: string): Entry {
    const { backOff } = this.#options;
    return this.#entries.getOrMake(audience, () => ({
      backOff: new BackOff(backOff),
      fetchedAt: 0,
      renewAt: 0,
      retryAt: 0,
    }));
  }

  #fetch(audience: string, entry: Entry): Promise<JwtSvid> {
    entry.fetching ??= this.#ask(audience, entry).finally(() => {
      delete entry.fetching;
    });
    return entry.fetching;
  }

  async #ask(audience: string, entry: Entry): Promise<JwtSvid> {
    const { socket, answerMs = usualAnswerMs, clock, observer } = this.#options;
    try {
      let found: JwtSvid | undefined;
      await callAgent({
        socket,
        method: "FetchJWTSVID",
        request: writeJwtRequest(audience),
        answerMs,
        stays: false,
        signal: this.#closing.signal,
        onMessage: (message) => {
          found = readToken(readJwtResponse(message), audience, clock.now());
        },
      });
      if (found === undefined) throw new Error("the agent sent no JWT-SVID");
      const now = clock.now();
      entry.fetchedAt = now;
      entry.renewAt = now + Math.max(shortestMs, (found.expiresAt - now) / 2);
      entry.retryAt = 0;
      delete entry.problem;
      entry.backOff.reset();
      // Agents keep tokens, too, and have their own mind about when one is old.
      const { svid: known } = entry;
      if (known !== undefined && known.token.reveal() === found.token.reveal()) return known;
      entry.svid = found;
      const { spiffeId, expiresAt } = found;
      const expires = new Date(expiresAt).toISOString();
      observer.rotated("jwt_svid", { spiffeId, audience, expires });
      return found;
    } catch (cause) {
      const message = `no JWT-SVID for ${shown(audience)}: ${messageOf(cause)}`;
      const isNew = entry.problem?.message !== message;
      const problem = new ProxyError("upstream.unreachable", message, { cause });
      entry.problem = problem;
      entry.retryAt = this.#passing.now() + entry.backOff.takeMs();
      if (!this.#closing.signal.aborted) observer.failed("jwt_svid", message, isNew);
      throw problem;
    }
  }
}

/** A clock that is set back makes a token old. */
function isYoung({ svid, fetchedAt, renewAt }: Entry, now: number): boolean {
  return svid !== undefined && now >= fetchedAt && now < renewAt;
}

function isUsable(svid: JwtSvid | undefined, now: number): svid is JwtSvid {
  return svid !== undefined && now < svid.expiresAt;
}

/**
 * The first token of a response, or an Error that says why it is of no use.
 *
 * It is not verified: it comes from the agent, and is shown to others who verify it. But one for somebody else must not
 * be shown to them, because it could be replayed there.
 */
function readToken(svids: readonly RawJwtSvid[], audience: string, now: number): JwtSvid {
  const [first] = svids;
  if (first === undefined) throw new Error("the agent sent no JWT-SVID");
  const { token, spiffeId } = first;
  if (token.length > maxTokenLength)
    throw new Error(`the JWT-SVID is longer than ${maxTokenLength} characters`);
  const id = parseSpiffeId(spiffeId);
  if (typeof id === "string")
    throw new Error(`the JWT-SVID is for "${shown(spiffeId)}", which is no SPIFFE ID: ${id}`);
  const claims = /^[\w.-]+$/.test(token) ? unverifiedClaims(token) : undefined;
  if (claims === undefined) throw new Error("the JWT-SVID is not a JWT");
  if (claims.subject !== spiffeId)
    throw new Error("the subject of the JWT-SVID is not its SPIFFE ID");
  if (!claims.audience.includes(audience)) throw new Error("the JWT-SVID is for another audience");
  if (claims.expiresAt === undefined)
    throw new Error("the JWT-SVID has no time at which it expires");
  const expiresAt = claims.expiresAt * 1_000;
  if (now >= expiresAt) throw new Error("the JWT-SVID has expired");
  return { token: new Secret(token), spiffeId, expiresAt };
}
