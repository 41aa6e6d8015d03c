/** Handles in the store of `state`: sealed there, so that every replica can say what they stand for. */
import { hash } from "node:crypto";
import { isObject, parseJsonObject } from "../../http/json-access.ts";
import type { TokenOwner } from "../../oauth/logout-token.ts";
import type { Clock, PluginDeps, Soon, StateStore } from "../../pipeline/plugin.ts";
import { Secret } from "../../secret.ts";
import { heardLogins, type HeardLogins } from "./heard-logins.ts";
import { PlaceholderStore } from "./placeholder.ts";

/** The token that a handle is to stand for. */
export interface PlacedToken {
  readonly token: string;
  readonly lifetimeMs: number;
  readonly issuer: string;
  readonly owner: TokenOwner;
  /** Seconds since the epoch, where the token says it. */
  readonly issuedAt: number | undefined;
}

/** What stands in the store under the digest of a handle. */
type Kept = Omit<PlacedToken, "lifetimeMs"> & { readonly until: number };

/** The handles of an instance; they outlive it with what is carried over reloads. */
export class Placeholders {
  readonly #local: PlaceholderStore;
  readonly #logins: HeardLogins;
  /** Undefined where handles are of this process alone. */
  readonly #store: StateStore | undefined;
  readonly #clock: Clock;

  constructor(deps: PluginDeps) {
    const { state, clock } = deps;
    this.#clock = clock;
    this.#local = deps.carry("placeholders", () => new PlaceholderStore(clock));
    this.#logins = heardLogins(deps);
    this.#store = state.isKept ? state.sealed : undefined;
    if (state.isKept && this.#store === undefined) {
      const message =
        "handles in place of tokens are of this process alone: set state.encryption_key_file for the others to know them";
      deps.log.warn({}, message);
    }
  }

  start(): Promise<void> {
    return this.#store === undefined ? Promise.resolve() : this.#logins.start();
  }

  /** A new handle, which the other replicas know when it is there; rejects where they could not be told. */
  mint(placed: PlacedToken): Soon<string> {
    const { lifetimeMs, ...rest } = placed;
    const handle = this.mintHere(placed);
    if (this.#store === undefined) return handle;
    const kept: Kept = { ...rest, until: this.#clock.now() + lifetimeMs };
    const set = this.#store.set(keyOf(handle), JSON.stringify(kept), lifetimeMs);
    return set instanceof Promise ? set.then(() => handle) : handle;
  }

  /** A new handle that only this process knows. */
  mintHere({ token, lifetimeMs, owner }: PlacedToken): string {
    return this.#local.mint(token, lifetimeMs, owner);
  }

  /** The token behind a handle; undefined when there is none any more, rejects where it cannot be seen. */
  resolve(handle: string): Soon<Secret | undefined> {
    const known = this.#local.resolve(handle);
    if (known !== undefined || this.#store === undefined) return known;
    const found = this.#store.get(keyOf(handle));
    return found instanceof Promise
      ? found.then((text) => this.#adopt(handle, text))
      : this.#adopt(handle, found);
  }

  /** Drops the handles for tokens of owners that the predicate names; how many there were. */
  forget(isMeant: (owner: TokenOwner) => boolean): number {
    const dropped = this.#local.forget(isMeant);
    for (const handle of dropped) void this.#delete(handle);
    return dropped.length;
  }

  /** What cannot be deleted is of a login that has ended, which is asked before it is used. */
  async #delete(handle: string): Promise<void> {
    try {
      await this.#store?.delete(keyOf(handle));
    } catch {
      // It ends by itself.
    }
  }

  #adopt(handle: string, text: string | undefined): Secret | undefined {
    const kept = text === undefined ? undefined : keptOf(text);
    if (kept === undefined || kept.until <= this.#clock.now()) return undefined;
    const { issuer, owner, issuedAt, until } = kept;
    if (this.#logins.includes(issuer, owner, issuedAt)) return undefined;
    const token = new Secret(kept.token);
    this.#local.hold(handle, { token, until, owner });
    return token;
  }
}

/** The store has what it needs to be found, and not the handle itself. */
function keyOf(handle: string): string {
  return `placeholder:${hash("sha256", handle, "base64url")}`;
}

/** What was sealed was written by a replica. */
function keptOf(text: string): Kept | undefined {
  const value = parseJsonObject(text);
  return value !== undefined && typeof value["token"] === "string" && isObject(value["owner"])
    ? (value as unknown as Kept)
    : undefined;
}
