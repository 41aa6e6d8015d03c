/**
 * What every replica has to hear, those that were away later: numbered messages in the store of state.
 *
 * They are published, so that they are heard at once, and kept, so that nobody misses one.
 */
import { randomUUID } from "node:crypto";
import { messageOf } from "../errors.ts";
import type { StateFeed, StateStore } from "./store.ts";

/** Options of a {@link Feed}. */
export interface FeedOptions {
  readonly store: StateStore;
  readonly name: string;
  /** How long a message is kept for those who were away. */
  readonly keptMs: number;
  /** Whether other processes tell as well: it is then looked for what was not heard. */
  readonly isShared: boolean;
  /** What the threads of this process have in common: they hear of a message though the store is away. */
  readonly threads?: StateStore | undefined;
  /** Messages are told later, as the store is away; undefined: all have been told. */
  onOwed?(problem: string | undefined): void;
}

/** Of messages: kept in the store, read by whoever begins to follow. */
const maxKept = 100_000;
const maxOwed = 10_000;
/** Messages of other threads that the store has not told yet. */
const maxAhead = 10_000;
const maxAtOnce = 500;
const pollMs = 1_000;
/** The number of a message is there before its text; whoever gave out the number may have died in between. */
const maxPollsForText = 5;

type Listener = (texts: readonly string[]) => void;

/** The feed of one name. Whoever follows hears a message at least once, in about the order in which they were told. */
export class Feed implements StateFeed {
  readonly #options: FeedOptions;
  readonly #listeners = new Set<Listener>();
  /** Those of them that have not heard yet what was told before. */
  readonly #behind = new Set<Listener>();
  /** Numbers above {@link #seen} of which the text is known here. */
  readonly #known = new Set<number>();
  /** Numbers up to {@link #seen} without a text, and how often it was looked for. */
  readonly #late = new Map<number, number>();
  readonly #owed: string[] = [];
  /** Heard of another thread, and not of the store yet. */
  readonly #ahead = new Set<string>();
  readonly #origin = randomUUID();
  #seen: number | undefined;
  #problem: string | undefined = "nothing has been heard yet";
  #following: (() => void) | undefined;
  #reading: Promise<void> | undefined;
  #isBehind = false;
  #poll: NodeJS.Timeout | undefined;
  #isClosed = false;

  constructor(options: FeedOptions) {
    this.#options = options;
  }

  get problem(): string | undefined {
    return this.#problem;
  }

  async tell(text: string): Promise<boolean> {
    void this.#tellThreads(text);
    try {
      await this.#put(text);
      return true;
    } catch (error) {
      if (this.#owed.length === 0) this.#options.onOwed?.(messageOf(error));
      if (this.#owed.length < maxOwed) this.#owed.push(text);
      this.#pollSoon();
      return false;
    }
  }

  async follow(listener: Listener): Promise<() => void> {
    this.#listeners.add(listener);
    this.#begin();
    this.#behind.add(listener);
    await this.#catchUp();
    return () => {
      this.#listeners.delete(listener);
      this.#behind.delete(listener);
    };
  }

  listen(listener: Listener): void {
    this.#listeners.add(listener);
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#poll);
    this.#following?.();
    this.#listeners.clear();
  }

  async #put(text: string): Promise<void> {
    const { store, keptMs } = this.#options;
    const number = await this.#last(1);
    this.#known.add(number);
    await store.set(this.#key(number), text, keptMs);
    await store.publish(this.#channel, `${number} ${text}`);
    if (this.#following === undefined) this.#known.clear();
  }

  async #tellThreads(text: string): Promise<void> {
    try {
      await this.#options.threads?.publish(this.#channel, `${this.#origin} ${text}`);
    } catch {
      // They hear of it from the store.
    }
  }

  get #channel(): string {
    return `feed:${this.#options.name}`;
  }

  #key(number: number): string {
    return `feed:${this.#options.name}:${number}`;
  }

  async #last(by: 0 | 1): Promise<number> {
    const { store, name, keptMs } = this.#options;
    // Kept longer than the messages, so that a number is not given out twice.
    const ttlMs = 2 * keptMs;
    const { values } = await store.add([{ key: `feed:${name}:last`, by, ttlMs }]);
    return values[0] ?? 0;
  }

  #begin(): void {
    if (this.#following !== undefined) return;
    const ends = [this.#followStore(), this.#followThreads()];
    this.#following = () => {
      for (const end of ends) end?.();
    };
  }

  #followThreads(): (() => void) | undefined {
    return this.#options.threads?.subscribe(this.#channel, (message) => {
      const at = message.indexOf(" ");
      if (message.slice(0, at) === this.#origin) return;
      const text = message.slice(at + 1);
      if (this.#ahead.size < maxAhead) this.#ahead.add(text);
      this.#hear([text]);
    });
  }

  #followStore(): () => void {
    return this.#options.store.subscribe(this.#channel, (message) => {
      const at = message.indexOf(" ");
      const number = Number(message.slice(0, at));
      if (!Number.isSafeInteger(number) || this.#known.has(number)) return;
      if (this.#seen !== undefined && number <= this.#seen) return;
      this.#known.add(number);
      this.#hearStore([message.slice(at + 1)]);
      void this.#catchUp();
    });
  }

  #catchUp(): Promise<void> {
    this.#isBehind = true;
    this.#reading ??= this.#readNew();
    return this.#reading;
  }

  async #readNew(): Promise<void> {
    while (this.#isBehind) {
      this.#isBehind = false;
      try {
        await this.#payOwed();
        const last = await this.#last(0);
        // A store that forgot gives out its numbers again.
        const seen = Math.min(this.#seen ?? last, last);
        await this.#hearNumbers(seen, last);
        await this.#tellKept(last);
        this.#problem = undefined;
      } catch (error) {
        this.#problem = messageOf(error);
      }
    }
    // With the last look in one turn: whoever is behind from here on begins to read anew.
    this.#reading = undefined;
    this.#pollSoon();
  }

  async #hearNumbers(seen: number, last: number): Promise<void> {
    const wanted = [...this.#late.keys()];
    for (let number = Math.max(seen + 1, last - maxKept + 1); number <= last; number += 1) {
      if (!this.#known.has(number)) wanted.push(number);
    }
    await this.#texts(wanted, (numbers, texts) => {
      for (const [at, number] of numbers.entries()) {
        const tries = (this.#late.get(number) ?? 0) + 1;
        if (texts[at] !== undefined || tries > maxPollsForText) this.#late.delete(number);
        else this.#late.set(number, tries);
      }
      this.#hearStore(texts.filter((text) => text !== undefined));
    });
    this.#seen = last;
    for (const number of this.#known) if (number <= last) this.#known.delete(number);
  }

  async #tellKept(last: number): Promise<void> {
    const behind = [...this.#behind];
    if (behind.length === 0) return;
    const from = Math.max(1, last - maxKept + 1);
    const numbers = Array.from({ length: last - from + 1 }, (_, at) => from + at);
    await this.#texts(numbers, (_, texts) => {
      const found = texts.filter((text) => text !== undefined);
      for (const listener of behind) listener(found);
    });
    for (const listener of behind) this.#behind.delete(listener);
  }

  async #texts(
    numbers: readonly number[],
    next: (numbers: readonly number[], texts: readonly (string | undefined)[]) => void,
  ): Promise<void> {
    for (let at = 0; at < numbers.length; at += maxAtOnce) {
      const some = numbers.slice(at, at + maxAtOnce);
      const texts = some.map(async (one) => this.#options.store.get(this.#key(one)));
      next(some, await Promise.all(texts));
    }
  }

  async #payOwed(): Promise<void> {
    if (this.#owed.length === 0) return;
    for (let text = this.#owed[0]; text !== undefined; text = this.#owed[0]) {
      await this.#put(text);
      this.#owed.shift();
    }
    this.#options.onOwed?.(undefined);
  }

  #hearStore(texts: readonly string[]): void {
    this.#hear(texts.filter((text) => !this.#ahead.delete(text)));
  }

  #hear(texts: readonly string[]): void {
    if (texts.length === 0) return;
    for (const listener of this.#listeners) listener(texts);
  }

  #pollSoon(): void {
    clearTimeout(this.#poll);
    // What could not be read is looked for again, also where nobody else tells.
    const isDone = this.#owed.length === 0 && this.#problem === undefined;
    if (this.#isClosed || (!this.#options.isShared && isDone)) return;
    this.#poll = setTimeout(() => void this.#catchUp(), pollMs).unref();
  }
}
