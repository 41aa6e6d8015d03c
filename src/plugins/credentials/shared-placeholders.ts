/** Handles that other threads can resolve, and other replicas: those find them sealed in the store of `state`. */
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
  /** What the threads of this process have in common; undefined where there is one. */
  readonly #threads: StateStore | undefined;
  /** Undefined where handles are of this process alone. */
  readonly #store: StateStore | undefined;
  readonly #clock: Clock;

  constructor(deps: PluginDeps) {
    const { state, clock } = deps;
    this.#clock = clock;
    this.#local = deps.carry("placeholders", () => new PlaceholderStore(clock));
    this.#logins = heardLogins(deps);
    this.#threads = deps.isAlone ? undefined : deps.shared;
    this.#store = state.isKept ? state.sealed : undefined;
    if (state.isKept && this.#store === undefined) {
      const message =
        "handles in place of tokens are of this process alone: set state.encryption_key_file for the others to know them";
      deps.log.warn({}, message);
    }
  }

  start(): Promise<void> {
    const isAlone = this.#threads === undefined && this.#store === undefined;
    return isAlone ? Promise.resolve() : this.#logins.start();
  }

  /** A new handle, which other threads and replicas know when it is there; rejects where they could not be told. */
  mint(placed: PlacedToken): Soon<string> {
    const told = [this.#threads, this.#store].filter((store) => store !== undefined);
    return this.#mint(placed, told);
  }

  /** A new handle that only this process knows. */
  mintHere(placed: PlacedToken): Soon<string> {
    return this.#mint(placed, this.#threads === undefined ? [] : [this.#threads]);
  }

  /** The token behind a handle; undefined when there is none any more, rejects where it cannot be seen. */
  resolve(handle: string): Soon<Secret | undefined> {
    const known = this.#local.resolve(handle);
    if (known !== undefined) return known;
    if (this.#threads === undefined) return this.#resolveIn(this.#store, handle);
    return this.#resolveInAny(this.#threads, handle);
  }

  /** Drops the handles for tokens of owners that the predicate names; how many there were. */
  forget(isMeant: (owner: TokenOwner) => boolean): number {
    const dropped = this.#local.forget(isMeant);
    for (const handle of dropped) void this.#delete(handle);
    return dropped.length;
  }

  /** What cannot be deleted is of a login that has ended, which is asked before it is used. */
  async #delete(handle: string): Promise<void> {
    for (const store of [this.#threads, this.#store]) {
      try {
        await store?.delete(keyOf(handle));
      } catch {
        // It ends by itself.
      }
    }
  }

  #mint(placed: PlacedToken, told: readonly StateStore[]): Soon<string> {
    const { lifetimeMs, ...rest } = placed;
    const handle = this.#local.mint(placed.token, lifetimeMs, placed.owner);
    if (told.length === 0) return handle;
    const kept: Kept = { ...rest, until: this.#clock.now() + lifetimeMs };
    const text = JSON.stringify(kept);
    const sets = told.map((store) => store.set(keyOf(handle), text, lifetimeMs));
    const waits = sets.filter((set) => set instanceof Promise);
    return waits.length === 0 ? handle : Promise.all(waits).then(() => handle);
  }

  async #resolveInAny(threads: StateStore, handle: string): Promise<Secret | undefined> {
    return (await this.#resolveIn(threads, handle)) ?? this.#resolveIn(this.#store, handle);
  }

  #resolveIn(store: StateStore | undefined, handle: string): Soon<Secret | undefined> {
    const found = store?.get(keyOf(handle));
    return found instanceof Promise
      ? found.then((text) => this.#adopt(handle, text))
      : this.#adopt(handle, found);
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
