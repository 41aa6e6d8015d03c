/** The other side of DPoP (RFC 9449): keys of this process that tokens are bound to, and proofs of them. */
import { createHash, generateKeyPairSync, type KeyObject, randomUUID } from "node:crypto";
import { type JWK, SignJWT } from "jose";
import { BoundedMap } from "../bounded-map.ts";
import { accessTokenHash } from "./dpop-proof.ts";
import type { Clock } from "../duration.ts";

/** One request that is to be proved. */
export interface ProvedRequest {
  readonly method: string;
  /** Where it goes; query and fragment are left out of the proof. */
  readonly url: string;
  /** The token that goes with it; absent for the request for one. */
  readonly accessToken?: string;
}

/** Callers of whom each has a key; the oldest loses its own, and its tokens with it. */
const maxCallers = 1_000;
/** Servers whose nonce is remembered for one key. */
const maxServers = 1_000;
/** RFC 9449 section 8.1: NQCHAR. */
const nonceSyntax = /^[\x21\x23-\x5b\x5d-\x7e]{1,1024}$/;

/** A key pair that never leaves this object, and what servers said that its proofs must have. */
export class DpopKey {
  /** As in `cnf.jkt`: names the key. */
  readonly thumbprint: string;
  readonly #jwk: JWK;
  readonly #privateKey: KeyObject;
  readonly #clock: Clock;
  readonly #nonces = new BoundedMap<string, string>(maxServers);

  constructor(clock: Clock) {
    const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const { crv = "", kty = "", x = "", y = "" } = publicKey.export({ format: "jwk" });
    this.#jwk = { crv, kty, x, y };
    // RFC 7638: the members in the order of their names.
    this.thumbprint = createHash("sha256").update(JSON.stringify(this.#jwk)).digest("base64url");
    this.#privateKey = privateKey;
    this.#clock = clock;
  }

  /** A proof that no other request has. */
  proof({ method, url, accessToken }: ProvedRequest): Promise<string> {
    const nonce = this.#nonces.get(new URL(url).origin);
    return new SignJWT({
      jti: randomUUID(),
      htm: method,
      htu: url.replace(/[?#].*$/s, ""),
      ...(accessToken === undefined ? {} : { ath: accessTokenHash(accessToken) }),
      ...(nonce === undefined ? {} : { nonce }),
    })
      .setProtectedHeader({ alg: "ES256", typ: "dpop+jwt", jwk: this.#jwk })
      .setIssuedAt(Math.floor(this.#clock.now() / 1000))
      .sign(this.#privateKey);
  }

  /** Remembers the nonce that a server gave with a response (`DPoP-Nonce`); false where it gave none. */
  learn(url: string, nonce: string | undefined): boolean {
    if (nonce === undefined || !nonceSyntax.test(nonce)) return false;
    this.#nonces.renew(new URL(url).origin, nonce);
    return true;
  }
}

/** The keys of this process: one for all callers, and one for each that is to have its own. Never on a disk. */
export class DpopKeys {
  readonly #clock: Clock;
  readonly #ofCallers = new BoundedMap<string, DpopKey>(maxCallers);
  #shared: DpopKey | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  shared(): DpopKey {
    this.#shared ??= new DpopKey(this.#clock);
    return this.#shared;
  }

  of(caller: string): DpopKey {
    const key = this.#ofCallers.get(caller) ?? new DpopKey(this.#clock);
    this.#ofCallers.renew(caller, key);
    return key;
  }
}
