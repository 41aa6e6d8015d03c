/** State of one process: lost with it, and shared with nobody. */
import { Channels } from "./channels.ts";
import {
  type Added,
  type Addition,
  maxMembers,
  type OwnedStore,
  stateUnavailable,
} from "./store.ts";

/** What stands under a key. */
export interface Entry {
  readonly value: string | number;
  /** Milliseconds since the epoch; infinite where it does not end. */
  readonly until: number;
  /** What a counter has counted, where that matters. */
  readonly members?: Set<string> | undefined;
}

/** Options of a {@link MemoryStore}. */
export interface MemoryStoreOptions {
  /** Of keys and values together. What exceeds it is refused: remote input cannot displace entries. */
  readonly maxBytes: number;
  readonly clock?: { now(): number };
}

/** What an entry takes besides its texts. */
const entryBytes = 64;
/** A flood does not pay for a walk over all entries at every request. */
const sweepEveryMs = 1_000;

/** The entries of a process, and the store where nothing else is configured. */
export class MemoryStore implements OwnedStore {
  readonly #entries = new Map<string, Entry>();
  readonly #channels = new Channels();
  readonly #maxBytes: number;
  readonly #clock: { now(): number };
  #bytes = 0;
  #sweptAt = 0;

  constructor({ maxBytes, clock = Date }: MemoryStoreOptions) {
    this.#maxBytes = maxBytes;
    this.#clock = clock;
  }

  get entries(): ReadonlyMap<string, Entry> {
    return this.#entries;
  }

  open(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  get(key: string): string | undefined {
    const value = this.#live(key)?.value;
    return typeof value === "string" ? value : undefined;
  }

  set(key: string, value: string, ttlMs?: number): void {
    this.#put(key, value, ttlMs);
  }

  delete(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    this.#entries.delete(key);
    this.#bytes -= bytesOf(key, entry.value) + bytesOfMembers(entry.members);
  }

  /** Whether the counter has counted it. */
  has(key: string, member: string): boolean {
    return this.#live(key)?.members?.has(member) === true;
  }

  add(additions: readonly Addition[]): Added {
    const values = additions.map(({ key }) => this.#count(key));
    const refusedAt = additions.findIndex(
      ({ key, member, below = Infinity }, at) =>
        (values[at] ?? 0) >= below && (member === undefined || !this.has(key, member)),
    );
    if (refusedAt !== -1) return { refusedAt, values };
    this.#makeRoom(additions);
    for (const { key, by, ttlMs, member } of additions) {
      const isDue = member === undefined || this.#turn(key, member, by);
      // One key may come twice.
      this.#put(key, Math.max(0, this.#count(key) + (isDue ? by : 0)), ttlMs);
      if (isDue && member !== undefined) this.#remember(key, member, by > 0);
    }
    return { refusedAt: undefined, values: additions.map(({ key }) => this.#count(key)) };
  }

  counters(keys: readonly string[]): readonly number[] {
    return keys.map((key) => this.#count(key));
  }

  compareAndSet(key: string, expected: string | undefined, value: string, ttlMs?: number): boolean {
    if (this.get(key) !== expected) return false;
    this.#put(key, value, ttlMs);
    return true;
  }

  publish(channel: string, message: string): void {
    this.#channels.publish(channel, message);
  }

  subscribe(channel: string, listener: (message: string) => void): () => void {
    return this.#channels.subscribe(channel, listener);
  }

  /** Puts an entry where it was found to be, with the members that it had before. */
  restore(key: string, entry: Entry | undefined): void {
    const known = this.#entries.get(key)?.members;
    this.delete(key);
    if (entry === undefined || entry.until <= this.#clock.now()) return;
    const members =
      known === undefined ? entry.members : new Set([...known, ...(entry.members ?? [])]);
    this.#entries.set(key, { ...entry, members });
    this.#bytes += bytesOf(key, entry.value) + bytesOfMembers(members);
  }

  /** Forgets what has ended. */
  sweep(): void {
    const now = this.#clock.now();
    this.#sweptAt = now;
    for (const [key, { until }] of this.#entries) if (until <= now) this.delete(key);
  }

  #live(key: string): Entry | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined || entry.until > this.#clock.now()) return entry;
    this.delete(key);
    return undefined;
  }

  #count(key: string): number {
    const value = this.#live(key)?.value;
    return typeof value === "number" ? value : 0;
  }

  #put(key: string, value: string | number, ttlMs = Infinity): void {
    this.#makeRoom([{ key, value }]);
    const known = this.#entries.get(key);
    this.#bytes += bytesOf(key, value) - (known === undefined ? 0 : bytesOf(key, known.value));
    const members = typeof value === "number" ? known?.members : undefined;
    if (members === undefined) this.#bytes -= bytesOfMembers(known?.members);
    this.#entries.set(key, { value, until: this.#clock.now() + ttlMs, members });
  }

  /** Whether the addition changes anything: a member is added once, and taken out where it is. */
  #turn(key: string, member: string, by: number): boolean {
    return by !== 0 && this.has(key, member) !== by > 0;
  }

  #remember(key: string, member: string, isAdded: boolean): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    const { members = new Set<string>() } = entry;
    if (isAdded && members.size >= maxMembers) return;
    if (isAdded) members.add(member);
    else members.delete(member);
    this.#bytes += (isAdded ? 1 : -1) * memberBytes(member);
    this.#entries.set(key, { ...entry, members });
  }

  /** All of them fit, or none is added. */
  #makeRoom(
    wanted: readonly {
      readonly key: string;
      readonly value?: string | number;
      readonly member?: string | undefined;
    }[],
  ): void {
    let bytes = 0;
    for (const { key, value = 0, member } of wanted) {
      const known = this.#entries.get(key);
      bytes += bytesOf(key, value) - (known === undefined ? 0 : bytesOf(key, known.value));
      if (member !== undefined && known?.members?.has(member) !== true)
        bytes += memberBytes(member);
    }
    if (bytes <= 0 || this.#bytes + bytes <= this.#maxBytes) return;
    if (Math.abs(this.#clock.now() - this.#sweptAt) >= sweepEveryMs) this.sweep();
    if (this.#bytes + bytes > this.#maxBytes) throw stateUnavailable("it is full (state.max_size)");
  }
}

function bytesOf(key: string, value: string | number): number {
  return entryBytes + 2 * key.length + (typeof value === "string" ? 2 * value.length : 0);
}

function memberBytes(member: string): number {
  return entryBytes + 2 * member.length;
}

function bytesOfMembers(members: ReadonlySet<string> | undefined): number {
  let bytes = 0;
  if (members === undefined) return bytes;
  for (const member of members) bytes += memberBytes(member);
  return bytes;
}
