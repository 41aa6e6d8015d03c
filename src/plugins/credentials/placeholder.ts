/**
 * Placeholders: opaque handles that stand for a caller's token while the agent has the request in its hands.
 *
 * jwt-validation mints them, token-exchange and token-broker resolve them; the agent never sees the token.
 */
import { randomBytes } from "node:crypto";
import { ownText } from "../../bounded-map.ts";
import type { TokenOwner } from "../../oauth/logout-token.ts";
import { Secret } from "../../secret.ts";
import type { Clock } from "../../pipeline/plugin.ts";

/** How every handle begins; tokens of issuers do not. */
export const placeholderPrefix = "abph_";

/** How much of a handle may stand in a record. */
export const placeholderShownLength = 11;

/** Of all the tokens that are held: one can be as long as a message head. */
const maxHeldCharacters = 64 * 1024 * 1024;

interface Held {
  readonly token: Secret;
  readonly length: number;
  readonly until: number;
  readonly owner: TokenOwner;
}

/** The handles that this process knows. */
export class PlaceholderStore {
  readonly #held = new Map<string, Held>();
  readonly #clock: Clock;
  readonly #maxEntries: number;
  readonly #maxCharacters: number;
  #characters = 0;

  constructor(clock: Clock, maxEntries = 50_000, maxCharacters = maxHeldCharacters) {
    this.#clock = clock;
    this.#maxEntries = maxEntries;
    this.#maxCharacters = maxCharacters;
  }

  get size(): number {
    return this.#held.size;
  }

  /** A new handle for the token. When the store is full, what has ended goes first and then the oldest. */
  mint(token: string, lifetimeMs: number, owner: TokenOwner = {}): string {
    const handle = `${placeholderPrefix}${randomBytes(32).toString("base64url")}`;
    // Its length is counted, and not that of the head that it was cut out of.
    const own = new Secret(ownText(token));
    this.hold(handle, { token: own, until: this.#clock.now() + lifetimeMs, owner });
    return handle;
  }

  /** Holds a handle that exists already, in the same way. */
  hold(handle: string, held: Omit<Held, "length">): void {
    const known = this.#held.get(handle);
    if (known !== undefined) this.#drop(handle, known);
    const { length } = held.token.reveal();
    const isFull =
      this.#held.size >= this.#maxEntries || this.#characters + length > this.#maxCharacters;
    if (isFull) this.#makeRoom();
    this.#held.set(handle, { ...held, length });
    this.#characters += length;
  }

  /** The token behind a handle; undefined when it was never minted here or has ended. */
  resolve(handle: string): Secret | undefined {
    const held = this.#held.get(handle);
    if (held === undefined) return undefined;
    if (held.until > this.#clock.now()) return held.token;
    this.#drop(handle, held);
    return undefined;
  }

  /** Drops the handles for tokens of owners that the predicate names, and returns them. */
  forget(isMeant: (owner: TokenOwner) => boolean): string[] {
    const meant = [...this.#held].filter(([, { owner }]) => isMeant(owner));
    for (const [handle, held] of meant) this.#drop(handle, held);
    return meant.map(([handle]) => handle);
  }

  #makeRoom(): void {
    const now = this.#clock.now();
    for (const [handle, held] of this.#held) if (held.until <= now) this.#drop(handle, held);
    // An eighth at a time, so that a flood does not pay for this walk at every request.
    const kept = Math.floor((this.#maxEntries * 7) / 8);
    const keptCharacters = Math.floor((this.#maxCharacters * 7) / 8);
    for (const [handle, held] of this.#held) {
      if (this.#held.size <= kept && this.#characters <= keptCharacters) break;
      this.#drop(handle, held);
    }
  }

  #drop(handle: string, { length }: Held): void {
    this.#held.delete(handle);
    this.#characters -= length;
  }
}
