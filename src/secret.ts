/** A secret value that cannot be printed by accident, and keys made of one. */
import { hash, hkdfSync } from "node:crypto";
import { inspect } from "node:util";

const shown = "[secret]";

type Listener = (secret: Secret) => void;

/** The live secrets of this thread, weakly: what nobody holds any more is forgotten. */
let living: WeakRef<Secret>[] = [];
let pruneAt = 1_024;
const listeners = new Set<Listener>();

/** Calls back for every secret that this thread holds, and for each that it will. */
export function onEverySecret(listener: Listener): void {
  listeners.add(listener);
  for (const reference of living) {
    const secret = reference.deref();
    if (secret !== undefined) listener(secret);
  }
}

function announce(secret: Secret): void {
  if (living.length >= pruneAt) {
    living = living.filter((reference) => reference.deref() !== undefined);
    pruneAt = Math.max(1_024, living.length * 2);
  }
  living.push(new WeakRef(secret));
  for (const listener of listeners) listener(secret);
}

/**
 * Holds a token, password or key; every way of turning it into text gives `[secret]`.
 *
 * The value comes out through {@link Secret.reveal} alone, which is called at the last line before the wire.
 */
export class Secret {
  readonly #value: string;

  /** `whose`: a caller's secret came from the client, who may say it again; it is not looked for in what leaves. */
  constructor(value: string, whose: "own" | "caller" = "own") {
    this.#value = value;
    if (whose === "own") announce(this);
  }

  reveal(): string {
    return this.#value;
  }

  toString(): string {
    return shown;
  }

  toJSON(): string {
    return shown;
  }

  [inspect.custom](): string {
    return shown;
  }
}

/** Bytes for one purpose; who has the seed makes the same ones, and nobody learns the seed from them. */
export function derivedBytes(seed: Uint8Array, purpose: string, length = 32): Buffer {
  return Buffer.from(hkdfSync("sha256", seed, "", hash("sha256", purpose, "buffer"), length));
}
