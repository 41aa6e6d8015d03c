/**
 * State that replicas share in Redis or Valkey.
 *
 * No call waits longer than its limit. While the server is away, calls fail at once, and one question at a time finds out
 * whether it is back.
 */
import { setTimeout as delay } from "node:timers/promises";
import { BoundedMap } from "../bounded-map.ts";
import { messageOf } from "../errors.ts";
import { Bounded } from "./bounded.ts";
import { Channels } from "./channels.ts";
import type { RedisCommands, RedisPlace } from "./redis-client.ts";
import { addScript, compareAndSetScript, counterField, type Script } from "./redis-scripts.ts";
import {
  type Added,
  type Addition,
  type OwnedStore,
  type StateWatch,
  stateUnavailable,
} from "./store.ts";

/** Options of a {@link RedisStore}. */
export interface RedisStoreOptions extends StateWatch {
  readonly place: RedisPlace;
  /** Before every key and channel. */
  readonly prefix: string;
  /** Longest that a call waits. */
  readonly timeoutMs: number;
  readonly clock?: { now(): number };
}

/** A counter as it was seen last; forgotten when it would have ended. */
interface Seen {
  readonly value: string;
  readonly version: string;
  readonly incarnation: string;
  readonly until: number;
}

const maxSeen = 10_000;
/** What the script says of each counter: v, n, e, and whether it was added to. */
const counterParts = 4;
const probeEveryMs = 200;
/** Names counters that the server had lost. */
const lostChannel = "lost";

/** One server, cluster or set of sentinels. */
export class RedisStore implements OwnedStore {
  readonly #options: RedisStoreOptions;
  readonly #bounded: Bounded;
  readonly #channels = new Channels();
  readonly #seen = new BoundedMap<string, Seen>(maxSeen);
  readonly #clock: { now(): number };
  #client: RedisCommands | undefined;
  #probe: NodeJS.Timeout | undefined;
  readonly #subscribed = new Set<string>();
  #isClosed = false;

  constructor(options: RedisStoreOptions) {
    this.#options = options;
    this.#clock = options.clock ?? Date;
    this.#bounded = new Bounded({
      ...options,
      onState: (problem) => {
        if (problem !== undefined) this.#probeSoon();
        options.onState?.(problem);
      },
    });
  }

  /** Resolves when the server answers, or when it is known to be away: it may come later. */
  async open(): Promise<void> {
    const { makeClient } = await import("./redis-client.ts");
    if (this.#isClosed) return;
    const client = makeClient(this.#options.place);
    this.#client = client;
    this.subscribe(lostChannel, (key) => this.#retell(key));
    client.on("error", (error) => this.#bounded.is(messageOf(error)));
    const connected = client.connect().then(() => undefined);
    await this.#bounded.run(connected).then(
      () => this.#listen(),
      () => undefined,
    );
  }

  close(): Promise<void> {
    this.#isClosed = true;
    this.#options.onClosed?.();
    clearTimeout(this.#probe);
    try {
      this.#client?.destroy();
    } catch {
      // It was not connected.
    }
    this.#client = undefined;
    return Promise.resolve();
  }

  async get(key: string): Promise<string | undefined> {
    return (await this.#call((client) => client.get(this.#named(key)))) ?? undefined;
  }

  async set(key: string, value: string, ttlMs?: number): Promise<void> {
    const options = ttlMs === undefined ? undefined : { PX: whole(ttlMs) };
    await this.#call((client) => client.set(this.#named(key), value, options));
  }

  async delete(key: string): Promise<void> {
    await this.#call((client) => client.del(this.#named(key)));
  }

  async add(additions: readonly Addition[]): Promise<Added> {
    const giveUpAt = performance.now() + this.#options.timeoutMs;
    for (;;) {
      const { holdMs, ...added } = await this.#addOnce(additions);
      if (holdMs === 0) return added;
      // Other replicas are saying what they saw of a counter that was lost.
      if (performance.now() + holdMs > giveUpAt) throw stateUnavailable("counters are put back");
      await delay(holdMs);
    }
  }

  async #addOnce(additions: readonly Addition[]): Promise<Added & { readonly holdMs: number }> {
    const keys = additions.map(({ key }) => this.#named(key));
    const args = additions.flatMap(({ by, below, ttlMs, member }, at) => {
      const seen = this.#lastSeen(keys[at] ?? "");
      return [
        String(by),
        below === undefined ? "" : String(below),
        ttlMs === undefined ? "" : String(whole(ttlMs)),
        seen?.value ?? "0",
        seen?.version ?? "0",
        seen?.incarnation ?? "",
        member ?? "",
      ];
    });
    // What was made when nobody waited any more was not counted on: it is given back.
    const undo = (late: unknown): void => {
      const back = additions.flatMap(({ by, below: _below, ...one }, at) =>
        isMade(late, at) ? [{ ...one, by: -by }] : [],
      );
      if (back.length > 0) this.add(back).catch(() => undefined);
    };
    const reply = await this.#run(addScript, { keys, arguments: args }, undo);
    return this.#added(additions, keys, reply);
  }

  counters(keys: readonly string[]): Promise<readonly number[]> {
    const named = keys.map((key) => this.#named(key));
    return this.#call(async (client) =>
      (await Promise.all(named.map((key) => client.hGet(key, counterField)))).map(Number),
    );
  }

  async compareAndSet(
    key: string,
    expected: string | undefined,
    value: string,
    ttlMs?: number,
  ): Promise<boolean> {
    const args = [
      expected === undefined ? "0" : "1",
      expected ?? "",
      value,
      ttlMs === undefined ? "" : String(whole(ttlMs)),
    ];
    const call = { keys: [this.#named(key)], arguments: args };
    return Number(await this.#run(compareAndSetScript, call)) === 1;
  }

  async publish(channel: string, message: string): Promise<void> {
    await this.#call((client) => client.publish(this.#named(channel), message));
  }

  subscribe(channel: string, listener: (message: string) => void): () => void {
    const end = this.#channels.subscribe(channel, listener, () => {
      if (!this.#subscribed.delete(channel)) return;
      this.#client?.unsubscribe(this.#named(channel)).catch(() => undefined);
    });
    this.#listen();
    return end;
  }

  /** Subscribes to what is not subscribed yet. The client renews subscriptions by itself when it reconnects. */
  #listen(): void {
    const client = this.#client;
    if (client === undefined || this.#bounded.problem !== undefined) return;
    for (const channel of this.#channels.names) {
      if (this.#subscribed.has(channel)) continue;
      this.#subscribed.add(channel);
      const tell = (message: string): void => this.#channels.publish(channel, message);
      client
        .subscribe(this.#named(channel), tell)
        // Tried again when the next one subscribes, or the server is back.
        .catch(() => this.#subscribed.delete(channel));
    }
  }

  #added(
    additions: readonly Addition[],
    keys: readonly string[],
    reply: unknown,
  ): Added & { readonly holdMs: number } {
    const [refused, restored, hold, ...counters] = Array.isArray(reply) ? reply.map(String) : [];
    if (refused === undefined || counters.length !== counterParts * keys.length) {
      throw stateUnavailable("it answered something else than the script does");
    }
    if (Number(restored) > 0) {
      this.#options.onRestored?.(Number(restored));
      for (const { key } of additions) this.#tellLost(key);
    }
    const now = this.#clock.now();
    const values = keys.map((key, at) => {
      const [value = "0", version = "0", incarnation = ""] = counters.slice(counterParts * at);
      const until = now + (additions[at]?.ttlMs ?? Infinity);
      // Of a counter that refused and was never made nothing was seen.
      if (version !== "0") this.#seen.renew(key, { value, version, incarnation, until });
      return Number(value);
    });
    const refusedAt = Number(refused) > 0 ? Number(refused) - 1 : undefined;
    return { refusedAt, values, holdMs: Number(hold) };
  }

  #tellLost(key: string): void {
    this.#call((client) => client.publish(this.#named(lostChannel), key)).catch(() => undefined);
  }

  /** Says what was seen of a counter that the server had lost. */
  #retell(key: string): void {
    const seen = this.#lastSeen(this.#named(key));
    if (seen !== undefined) this.add([{ key, by: 0 }]).catch(() => undefined);
  }

  #lastSeen(key: string): Seen | undefined {
    const seen = this.#seen.get(key);
    if (seen === undefined || seen.until > this.#clock.now()) return seen;
    this.#seen.delete(key);
    return undefined;
  }

  #named(key: string): string {
    return this.#options.prefix + key;
  }

  #run(
    { digest, text }: Script,
    call: { keys: string[]; arguments: string[] },
    onLate?: (reply: unknown) => void,
  ): Promise<unknown> {
    return this.#call(
      (client) =>
        client.evalSha(digest, call).catch((error: unknown) => {
          if (!messageOf(error).startsWith("NOSCRIPT")) throw error;
          return client.eval(text, call);
        }),
      onLate,
    );
  }

  #call<T>(ask: (client: RedisCommands) => Promise<T>, onLate?: (reply: T) => void): Promise<T> {
    const { problem } = this.#bounded;
    const client = this.#client;
    if (client === undefined || problem !== undefined) {
      this.#options.onOperation?.("failed");
      return Promise.reject(stateUnavailable(problem ?? "it is not open"));
    }
    return this.#bounded.run(ask(client), onLate);
  }

  #probeSoon(): void {
    if (this.#isClosed) return;
    clearTimeout(this.#probe);
    this.#probe = setTimeout(() => void this.#ask(), probeEveryMs).unref();
  }

  /** A probe that hangs ends with its connection. */
  async #ask(): Promise<void> {
    const client = this.#client;
    if (client === undefined) return;
    try {
      await client.get(this.#named("probe"));
      this.#bounded.is(undefined);
      this.#listen();
    } catch {
      this.#probeSoon();
    }
  }
}

/** Whether the addition at this index changed its counter. */
function isMade(reply: unknown, at: number): boolean {
  return Array.isArray(reply) && String(reply[3 + counterParts * at + 3]) === "1";
}

/** The server takes whole milliseconds from 1. */
function whole(ttlMs: number): number {
  return Math.max(1, Math.ceil(ttlMs));
}
