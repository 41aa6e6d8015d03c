/** A secret value that cannot be printed by accident, and keys made of one. */
import { hash, hkdfSync } from "node:crypto";
import { inspect } from "node:util";

const shown = "[secret]";

/**
 * Holds a token, password or key; every way of turning it into text gives `[secret]`.
 *
 * The value comes out through {@link Secret.reveal} alone, which is called at the last line before the wire.
 */
export class Secret {
  readonly #value: string;

  constructor(value: string) {
    this.#value = value;
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
