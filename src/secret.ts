/** A secret value that cannot be printed by accident. */
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
