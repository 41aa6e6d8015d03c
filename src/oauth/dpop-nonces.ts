/** Nonces of this server for proofs (RFC 9449 section 8): made from the time and a secret, so that none is stored. */
import { createHmac, timingSafeEqual } from "node:crypto";
import type { Clock } from "../duration.ts";

/** How old a nonce is, in lifetimes: `stale` is still taken, and a newer one should be handed out. */
export type NonceAge = "fresh" | "stale";

/** The nonces of whoever has the secret. Each is good for one lifetime at least and two at most. */
export class DpopNonces {
  readonly #clock: Clock;
  readonly #secret: Uint8Array;

  constructor(clock: Clock, secret: Uint8Array) {
    this.#clock = clock;
    this.#secret = secret;
  }

  /** The nonce to hand out now. */
  current(lifetimeMs: number): string {
    return this.#of(lifetimeMs, this.#slot(lifetimeMs));
  }

  /** Its age; undefined for a nonce that is too old or was made by somebody else. */
  ageOf(nonce: string, lifetimeMs: number): NonceAge | undefined {
    const slot = this.#slot(lifetimeMs);
    if (isSame(nonce, this.#of(lifetimeMs, slot))) return "fresh";
    return isSame(nonce, this.#of(lifetimeMs, slot - 1)) ? "stale" : undefined;
  }

  #slot(lifetimeMs: number): number {
    return Math.floor(this.#clock.now() / lifetimeMs);
  }

  #of(lifetimeMs: number, slot: number): string {
    return createHmac("sha256", this.#secret).update(`${lifetimeMs}:${slot}`).digest("base64url");
  }
}

function isSame(given: string, wanted: string): boolean {
  return given.length === wanted.length && timingSafeEqual(Buffer.from(given), Buffer.from(wanted));
}
