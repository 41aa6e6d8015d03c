/** DPoP proofs (RFC 9449 section 4.3): whether the sender of a request has the key that its token is bound to. */
import { hash } from "node:crypto";
import {
  calculateJwkThumbprint,
  compactVerify,
  type CryptoKey,
  decodeProtectedHeader,
  importJWK,
  type JWK,
} from "jose";
import { BoundedMap } from "../bounded-map.ts";
import { messageOf } from "../errors.ts";
import { DpopNonces } from "./dpop-nonces.ts";
import type { Clock } from "../duration.ts";
import { parseJsonObject } from "../http/json-access.ts";
import { compactJws } from "./jwt-signature.ts";
import { digestOf, SeenOnce, type SharedIds } from "./seen-once.ts";
import { shown, type SignatureAlgorithm } from "./token-checks.ts";

/** Why a proof is not accepted; the words are in logs, events and labels of metrics, and do not change. */
export type ProofFaultCause =
  | "proof_missing"
  | "proof_malformed"
  | "proof_algorithm"
  | "proof_signature"
  | "proof_key"
  | "proof_method"
  | "proof_target"
  | "proof_token"
  | "proof_nonce"
  | "proof_early"
  | "proof_late"
  | "proof_replayed"
  | "proofs_full"
  | "proofs_unknown";

/** One check that a proof fails; no part of it is a secret. */
export interface ProofFault {
  readonly cause: ProofFaultCause;
  readonly claim?: string;
  readonly expected?: string;
  readonly found?: string;
}

/** What proofs must be. */
export interface ProofRules {
  readonly algorithms: readonly SignatureAlgorithm[];
  /** How old the `iat` of a proof may be, and how far ahead of this machine's clock. */
  readonly lifetimeMs: number;
  readonly leewayMs: number;
  /** Life of the nonces that proofs must have; without it none is asked for, and `iat` counts. */
  readonly nonceLifetimeMs?: number | undefined;
  /** Proofs that are remembered, so that none is taken twice. */
  readonly most: number;
  /** Asked besides what this process remembers, where proofs are used up for all replicas. */
  readonly shared?: SharedIds | undefined;
}

/** What is remembered of proofs; it outlives a reload, or what was used could be used again. */
export class ProofMemory {
  readonly seen: SeenOnce;
  readonly nonces: DpopNonces;
  /** The id that each message has used: the same message can be judged by two steps, and again after a reload. */
  readonly usedBy = new WeakMap<object, string>();

  constructor(clock: Clock, secret: Uint8Array) {
    this.seen = new SeenOnce(clock);
    this.nonces = new DpopNonces(clock, secret);
  }
}

/** The request that a proof came with. */
export interface ProvenRequest {
  /** Stands for the message, whoever judges it. */
  readonly message: object;
  readonly method: string;
  /** Whether `htu` is the address that the client called. */
  isTarget(htu: string): boolean;
  readonly accessToken: string;
  /** `cnf.jkt` of the access token. */
  readonly thumbprint: string;
}

/** Proofs are a few hundred bytes; with a large RSA key, two thousand. */
const longestProof = 8 * 1024;
const longestId = 1024;
const maxKeys = 1_000;
const privateMembers = ["d", "p", "q", "dp", "dq", "qi", "k"];

interface ProofKey {
  readonly thumbprint: string;
  readonly key: CryptoKey;
}

type ProofClaims = Readonly<Record<string, unknown>>;

/** What the protected header says of the key. */
interface ProofHeader {
  readonly algorithm: string;
  readonly jwk: JWK;
}

type Signed =
  | { readonly claims: ProofClaims; readonly fault?: undefined }
  | { readonly claims?: undefined; readonly fault: ProofFault };

/** Checks proofs by one set of rules. */
export class ProofChecker {
  readonly #rules: ProofRules;
  readonly #memory: ProofMemory;
  readonly #clock: Clock;
  /** Keys of clients as they were read, by their text. */
  readonly #keys = new BoundedMap<string, ProofKey>(maxKeys);

  constructor(rules: ProofRules, memory: ProofMemory, clock: Clock) {
    this.#rules = rules;
    this.#memory = memory;
    this.#clock = clock;
  }

  /** The nonce that clients are to use from now on; undefined where none is asked for. */
  get nonce(): string | undefined {
    const { nonceLifetimeMs } = this.#rules;
    return nonceLifetimeMs === undefined ? undefined : this.#memory.nonces.current(nonceLifetimeMs);
  }

  /** Whether the nonce of a proof that was accepted is about to end, so that the client should learn the next one. */
  isStale(proof: string): boolean {
    const { nonceLifetimeMs } = this.#rules;
    if (nonceLifetimeMs === undefined) return false;
    const nonce = parseJsonObject(
      Buffer.from(proof.split(".")[1] ?? "", "base64url").toString("utf8"),
    )?.["nonce"];
    return (
      typeof nonce !== "string" || this.#memory.nonces.ageOf(nonce, nonceLifetimeMs) !== "fresh"
    );
  }

  /** The first check that the proof fails; one that fails none is used up. */
  async check(proof: string, request: ProvenRequest): Promise<ProofFault | undefined> {
    const { claims, fault } = await this.#signed(proof, request.thumbprint);
    if (claims === undefined) return fault;
    return targetFault(claims, request) ?? this.#useFault(claims, request);
  }

  /** The claims, where they are signed with the key of this thumbprint. */
  async #signed(proof: string, thumbprint: string): Promise<Signed> {
    const header = headerOf(proof);
    if ("cause" in header) return { fault: header };
    const { algorithm, jwk } = header;
    const { algorithms } = this.#rules;
    if (!algorithms.some((one) => one === algorithm)) {
      const expected = algorithms.join(" or ");
      return {
        fault: { cause: "proof_algorithm", claim: "alg", expected, found: shown(algorithm) },
      };
    }
    let used: ProofKey;
    try {
      used = await this.#keyOf(jwk, algorithm);
    } catch {
      return { fault: malformed("jwk", "a public key that fits alg", "another value") };
    }
    if (used.thumbprint !== thumbprint) {
      const expected = "the key that the token is bound to (cnf.jkt)";
      return { fault: { cause: "proof_key", claim: "jwk", expected, found: "another key" } };
    }
    try {
      const { payload } = await compactVerify(proof, used.key);
      const claims = parseJsonObject(Buffer.from(payload).toString("utf8"));
      return claims === undefined
        ? { fault: malformed(undefined, "a JWT", "something else") }
        : { claims };
    } catch {
      const expected = "a signature by the key of the proof";
      return { fault: { cause: "proof_signature", expected, found: "another signature" } };
    }
  }

  async #keyOf(jwk: JWK, algorithm: string): Promise<ProofKey> {
    const text = JSON.stringify([algorithm, jwk.kty, jwk.crv, jwk.x, jwk.y, jwk.n, jwk.e]);
    const known = this.#keys.get(text);
    if (known !== undefined) return known;
    const { kty, crv, x, y, n, e } = jwk;
    // Nothing but the members of the key: `key_ops`, `ext` and `alg` are the client's words.
    const bare = Object.fromEntries(
      Object.entries({ kty, crv, x, y, n, e }).filter(([, member]) => member !== undefined),
    ) as JWK;
    const key = await importJWK(bare, algorithm);
    if (key instanceof Uint8Array || key.type !== "public") throw new Error("not a public key");
    const made = { key, thumbprint: await calculateJwkThumbprint(bare) };
    this.#keys.set(text, made);
    return made;
  }

  /** With a nonce the server knows how old a proof is, and the client's clock does not matter (section 4.3, 11). */
  #timeFault(payload: ProofClaims): ProofFault | undefined {
    const { nonceLifetimeMs, lifetimeMs, leewayMs } = this.#rules;
    const { iat, nonce } = payload;
    if (typeof iat !== "number" || !Number.isFinite(iat)) {
      return malformed("iat", "seconds since 1970", "no such date");
    }
    if (nonceLifetimeMs !== undefined) {
      const isOurs =
        typeof nonce === "string" &&
        this.#memory.nonces.ageOf(nonce, nonceLifetimeMs) !== undefined;
      if (isOurs) return undefined;
      const found = nonce === undefined ? "none" : "another one";
      return { cause: "proof_nonce", claim: "nonce", expected: "a nonce of this proxy", found };
    }
    const ageMs = this.#clock.now() - iat * 1_000;
    const found = `${Math.trunc(Math.abs(ageMs) / 1_000)} s ${ageMs < 0 ? "ahead" : "old"}`;
    if (ageMs < -leewayMs) {
      const expected = `at most ${leewayMs / 1_000} s ahead`;
      return { cause: "proof_early", claim: "iat", expected, found };
    }
    if (ageMs <= lifetimeMs + leewayMs) return undefined;
    const expected = `at most ${(lifetimeMs + leewayMs) / 1_000} s old (dpop.proof_lifetime)`;
    return { cause: "proof_late", claim: "iat", expected, found };
  }

  async #useFault(
    payload: ProofClaims,
    { message, thumbprint }: ProvenRequest,
  ): Promise<ProofFault | undefined> {
    const { jti } = payload;
    if (typeof jti !== "string" || jti === "" || jti.length > longestId) {
      return malformed("jti", "an id", "none");
    }
    const id = `${thumbprint}.${jti}`;
    const { seen, usedBy } = this.#memory;
    if (usedBy.get(message) === id) return undefined;
    const untimely = this.#timeFault(payload);
    if (untimely !== undefined) return untimely;
    const { nonceLifetimeMs, lifetimeMs, leewayMs, most, shared } = this.#rules;
    const keptMs =
      nonceLifetimeMs === undefined ? lifetimeMs + 2 * leewayMs + 1_000 : 2 * nonceLifetimeMs;
    let used: "new" | "used" | "full" = seen.use(id, { lifetimeMs: keptMs, most });
    if (used === "new" && shared !== undefined) {
      try {
        if (!(await shared.take(digestOf(id), keptMs))) used = "used";
      } catch (error) {
        return {
          cause: "proofs_unknown",
          expected: "an answer of the store",
          found: messageOf(error),
        };
      }
    }
    if (used === "new") {
      usedBy.set(message, id);
      return undefined;
    }
    if (used === "used") {
      const expected = "a proof that was not used before";
      return { cause: "proof_replayed", claim: "jti", expected, found: "one that was" };
    }
    const expected = `room for ${most} proofs (dpop.max_proofs)`;
    return { cause: "proofs_full", expected, found: "none" };
  }
}

/** Base64url SHA-256 of an access token, as proofs have it in `ath`. */
export function accessTokenHash(token: string): string {
  return hash("sha256", token, "base64url");
}

function headerOf(proof: string): ProofHeader | ProofFault {
  if (proof.length > longestProof || !compactJws.test(proof)) {
    return malformed(undefined, "a compact JWS", "something else");
  }
  let header: ReturnType<typeof decodeProtectedHeader>;
  try {
    header = decodeProtectedHeader(proof);
  } catch {
    return malformed(undefined, "a compact JWS", "something else");
  }
  const { typ, alg, jwk } = header as Readonly<Record<string, unknown>>;
  if (typeof typ !== "string" || typ.toLowerCase() !== "dpop+jwt") {
    return malformed("typ", "dpop+jwt", shown(typ));
  }
  if (typeof jwk !== "object" || jwk === null) {
    return malformed("jwk", "the client's public key", "none");
  }
  if (privateMembers.some((member) => Object.hasOwn(jwk, member))) {
    return malformed("jwk", "a public key", "a private one");
  }
  return { algorithm: typeof alg === "string" ? alg : "", jwk };
}

function targetFault(
  { htm, htu, ath }: ProofClaims,
  request: ProvenRequest,
): ProofFault | undefined {
  const { method, accessToken } = request;
  if (htm !== method) {
    return { cause: "proof_method", claim: "htm", expected: method, found: shown(htm) };
  }
  if (typeof htu !== "string" || !request.isTarget(htu)) {
    const expected = "the address of the request (dpop.public_urls)";
    return { cause: "proof_target", claim: "htu", expected, found: shown(htu) };
  }
  if (ath === accessTokenHash(accessToken)) return undefined;
  const found = ath === undefined ? "none" : "that of another token";
  return { cause: "proof_token", claim: "ath", expected: "the hash of the token", found };
}

function malformed(claim: string | undefined, expected: string, found: string): ProofFault {
  return { cause: "proof_malformed", ...(claim === undefined ? {} : { claim }), expected, found };
}
