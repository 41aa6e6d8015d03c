/** The other side of DPoP (RFC 9449): keys of this process that tokens are bound to, and proofs of them. */
import { createECDH, createHash, createPrivateKey, type KeyObject, randomUUID } from "node:crypto";
import { type JWK, SignJWT } from "jose";
import { BoundedMap } from "../bounded-map.ts";
import { accessTokenHash } from "./dpop-proof.ts";
import type { Clock } from "../duration.ts";
import { derivedBytes } from "../secret.ts";

/** One request that is to be proved. */
export interface ProvedRequest {
  readonly method: string;
  /** Where it goes; query and fragment are left out of the proof. */
  readonly url: string;
  /** The token that goes with it; absent for the request for one. */
  readonly accessToken?: string;
}

/** Callers whose keys are at hand; that of another is made again, and its nonces are learned again. */
const maxCallers = 1_000;
/** Servers whose nonce is remembered for one key. */
const maxServers = 1_000;
/** RFC 9449 section 8.1: NQCHAR. */
const nonceSyntax = /^[\x21\x23-\x5b\x5d-\x7e]{1,1024}$/;

/** The order of P-256 (FIPS 186-5). */
const curveOrder = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n;

/** A nonce that one of the keys has learned. */
export interface LearnedNonce {
  /** Absent for the key of all callers. */
  readonly caller?: string | undefined;
  readonly origin: string;
  readonly nonce: string;
}

/** A key pair that never leaves this object, and what servers said that its proofs must have. */
export class DpopKey {
  /** As in `cnf.jkt`: names the key. */
  readonly thumbprint: string;
  readonly #jwk: JWK;
  readonly #privateKey: KeyObject;
  readonly #clock: Clock;
  readonly #nonces = new BoundedMap<string, string>(maxServers);
  readonly #onNonce: (origin: string, nonce: string) => void;

  /** The pair is made of 48 random bytes (FIPS 186-5 A.2.1, extra random bits). */
  constructor(clock: Clock, bytes: Buffer, onNonce: (origin: string, nonce: string) => void) {
    const scalar = (BigInt(`0x${bytes.toString("hex")}`) % (curveOrder - 1n)) + 1n;
    const d = Buffer.from(scalar.toString(16).padStart(64, "0"), "hex");
    const ecdh = createECDH("prime256v1");
    ecdh.setPrivateKey(d);
    const point = ecdh.getPublicKey();
    const [x, y] = [point.subarray(1, 33), point.subarray(33)].map(base64url) as [string, string];
    this.#jwk = { crv: "P-256", kty: "EC", x, y };
    // RFC 7638: the members in the order of their names.
    this.thumbprint = createHash("sha256").update(JSON.stringify(this.#jwk)).digest("base64url");
    this.#privateKey = createPrivateKey({ key: { ...this.#jwk, d: base64url(d) }, format: "jwk" });
    this.#clock = clock;
    this.#onNonce = onNonce;
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
    const { origin } = new URL(url);
    if (this.#nonces.get(origin) !== nonce) this.#onNonce(origin, nonce);
    this.heard(origin, nonce);
    return true;
  }

  /** What the same key learned elsewhere. */
  heard(origin: string, nonce: string): void {
    this.#nonces.renew(origin, nonce);
  }
}

/** Where the keys come from, and who else has them. */
export interface DpopKeysOptions {
  readonly clock: Clock;
  /** Whoever has it has the same keys. */
  readonly seed: Uint8Array;
  /** Those who have the same keys; returns what tells them of a nonce. Absent: nobody. */
  share?(this: void, hear: (learned: LearnedNonce) => void): Sharing;
}

/** The way to others with the same keys. */
interface Sharing {
  tell(learned: LearnedNonce): void;
  close(): void;
}

/** The keys of this process: one for all callers, and one for each that is to have its own. Never on a disk. */
export class DpopKeys {
  readonly #clock: Clock;
  readonly #seed: Uint8Array;
  readonly #sharing: Sharing | undefined;
  readonly #ofCallers = new BoundedMap<string, DpopKey>(maxCallers);
  #shared: DpopKey | undefined;

  constructor({ clock, seed, share }: DpopKeysOptions) {
    this.#clock = clock;
    this.#seed = seed;
    this.#sharing = share?.(({ caller, origin, nonce }) => {
      const key = caller === undefined ? this.shared() : this.of(caller);
      key.heard(origin, nonce);
    });
  }

  shared(): DpopKey {
    this.#shared ??= this.#make();
    return this.#shared;
  }

  of(caller: string): DpopKey {
    const key = this.#ofCallers.get(caller) ?? this.#make(caller);
    this.#ofCallers.renew(caller, key);
    return key;
  }

  close(): void {
    this.#sharing?.close();
  }

  #make(caller?: string): DpopKey {
    const purpose = caller === undefined ? "shared" : `caller ${caller}`;
    return new DpopKey(this.#clock, derivedBytes(this.#seed, purpose, 48), (origin, nonce) =>
      this.#sharing?.tell({ caller, origin, nonce }),
    );
  }
}

function base64url(bytes: Buffer): string {
  return bytes.toString("base64url");
}
