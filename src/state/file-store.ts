/**
 * State of one process that outlives it: a log of entries, written and synced before a call is answered, so that what
 * was answered is there after a kill or a loss of power.
 *
 * A line is a checksum and the entry as it is after the call; of a key the last line counts. A line that was not
 * finished is the end of the log. The log is written anew when it has grown to several times what it holds.
 */
import { constants, type FileHandle, open, readFile, rename, rm } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { dirname, resolve } from "node:path";
import { hash } from "node:crypto";
import { crc32 } from "node:zlib";
import { type Clock, passingClock } from "../duration.ts";
import { messageOf } from "../errors.ts";
import { type Entry, MemoryStore } from "./memory-store.ts";
import type { Added, Addition, OwnedStore, StateWatch } from "./store.ts";
import { Bounded } from "./bounded.ts";

/** Options of a {@link FileStore}. */
export interface FileStoreOptions extends StateWatch {
  readonly path: string;
  readonly maxBytes: number;
  /** Longest that a call waits for the disk. */
  readonly timeoutMs: number;
  readonly clock?: { now(): number };
  /** The log is not written anew below this; 1 MiB when absent. */
  readonly minCompactBytes?: number;
}

const defaultMinCompactBytes = 1_048_576;
/** The log is written anew at this many times its size after the last time. */
const growth = 4;
/** Several times what a file can hold, and what one text can. */
const maxFileBytes = 268_435_456;
const retryMs = 1_000;

/**
 * One line of the log: key, value, end, and what a counter counts besides what earlier lines have; without a value the key
 * is deleted.
 */
type Line = readonly [
  key: string,
  value?: string | number,
  until?: number | undefined,
  members?: readonly string[],
];

interface Waiting {
  resolve(): void;
  reject(error: unknown): void;
}

/** One file, and one process that has it. */
export class FileStore implements OwnedStore {
  readonly #options: FileStoreOptions;
  readonly #clock: Clock;
  readonly #memory: MemoryStore;
  readonly #bounded: Bounded;
  #file: FileHandle | undefined;
  #lock: Server | undefined;
  #size = 0;
  #compactedSize = 0;
  #changed = new Set<string>();
  /** Members that no line has yet. */
  #fresh = new Map<string, string[]>();
  #waiting: Waiting[] = [];
  #writing: Promise<void> | undefined;
  #retryAt = Number.NEGATIVE_INFINITY;
  #mustRewrite = false;

  constructor(options: FileStoreOptions) {
    this.#options = options;
    const { maxBytes, clock = Date } = options;
    this.#clock = passingClock(clock);
    this.#memory = new MemoryStore({ maxBytes, clock });
    this.#bounded = new Bounded(options);
  }

  /** Rejects where another process has the file, or where it is none of ours. */
  async open(): Promise<void> {
    const { path } = this.#options;
    this.#lock = await lockOf(path);
    try {
      await this.#read();
      await this.#compact();
    } catch (error) {
      await this.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#writing;
    await this.#file?.close().catch(() => undefined);
    this.#file = undefined;
    this.#lock?.close();
    this.#lock = undefined;
  }

  get(key: string): string | undefined {
    return this.#memory.get(key);
  }

  set(key: string, value: string, ttlMs?: number): Promise<void> {
    this.#memory.set(key, value, ttlMs);
    return this.#written([key]);
  }

  delete(key: string): Promise<void> {
    this.#memory.delete(key);
    return this.#written([key]);
  }

  add(additions: readonly Addition[]): Added | Promise<Added> {
    const due = additions.flatMap((one) => {
      const { key, by, member } = one;
      // No counter goes below 0: more than it has is not taken from it.
      if (member === undefined) return { ...one, by: Math.max(by, -this.#count(key)) };
      return this.#memory.has(key, member) === by > 0 ? [] : one;
    });
    const added = this.#memory.add(additions);
    if (added.refusedAt !== undefined) return added;
    for (const { key, by, member } of due) {
      if (member === undefined) continue;
      if (by > 0 && this.#memory.has(key, member))
        this.#fresh.set(key, [...(this.#fresh.get(key) ?? []), member]);
      // Lines only add.
      else if (by < 0) this.#mustRewrite = true;
    }
    const undo = (): void => {
      // What was not answered was not made.
      this.#memory.add(due.map(({ key, by, ttlMs, member }) => ({ key, by: -by, ttlMs, member })));
      if (due.some(({ member }) => member !== undefined)) this.#mustRewrite = true;
    };
    return this.#written(
      additions.map(({ key }) => key),
      undo,
    ).then(() => added);
  }

  counters(keys: readonly string[]): readonly number[] {
    return this.#memory.counters(keys);
  }

  compareAndSet(
    key: string,
    expected: string | undefined,
    value: string,
    ttlMs?: number,
  ): false | Promise<boolean> {
    if (!this.#memory.compareAndSet(key, expected, value, ttlMs)) return false;
    return this.#written([key]).then(() => true);
  }

  publish(channel: string, message: string): void {
    this.#memory.publish(channel, message);
  }

  subscribe(channel: string, listener: (message: string) => void): () => void {
    return this.#memory.subscribe(channel, listener);
  }

  #count(key: string): number {
    return this.#memory.counters([key])[0] ?? 0;
  }

  /** Resolves when the keys are on the disk as they are now. All calls that wait share one write. */
  #written(keys: readonly string[], undo?: () => void): Promise<void> {
    for (const key of keys) this.#changed.add(key);
    const written = new Promise<void>((resolve, reject) => this.#waiting.push({ resolve, reject }));
    this.#writing ??= this.#drain();
    return this.#bounded.run(written).catch((error: unknown) => {
      undo?.();
      for (const key of keys) this.#changed.add(key);
      throw error;
    });
  }

  async #drain(): Promise<void> {
    while (this.#waiting.length > 0) {
      const waiting = this.#waiting;
      const changed = this.#changed;
      this.#waiting = [];
      this.#changed = new Set();
      try {
        await this.#write(changed);
        for (const one of waiting) one.resolve();
      } catch (error) {
        for (const key of changed) this.#changed.add(key);
        for (const one of waiting) one.reject(error);
      }
    }
    // With the last look in one turn: what comes from here on begins to write anew.
    this.#writing = undefined;
  }

  async #write(keys: ReadonlySet<string>): Promise<void> {
    const now = this.#clock.now();
    if (this.#mustRewrite) {
      if (now < this.#retryAt) throw new Error("the last write failed");
      this.#retryAt = now + retryMs;
      await this.#compact();
      return;
    }
    const fresh = this.#fresh;
    this.#fresh = new Map();
    const lines = Buffer.from([...keys].map((key) => this.#line(key, fresh.get(key))).join(""));
    try {
      if (this.#file === undefined) throw new Error("the file is not open");
      await this.#file.appendFile(lines);
      await this.#file.datasync();
    } catch (error) {
      // A part of a line may be there: nothing can be added behind it.
      this.#mustRewrite = true;
      this.#retryAt = now + retryMs;
      throw error;
    }
    this.#size += lines.length;
    const least = this.#options.minCompactBytes ?? defaultMinCompactBytes;
    if (this.#size > Math.max(least, this.#compactedSize * growth)) await this.#compact();
  }

  /** Writes what is there into a new file, which takes the place of the log whole. */
  async #compact(): Promise<void> {
    const { path } = this.#options;
    this.#memory.sweep();
    this.#fresh = new Map();
    const text = [...this.#memory.entries]
      .map(([key, { members }]) => this.#line(key, members === undefined ? [] : [...members]))
      .join("");
    const content = Buffer.from(text);
    const next = `${path}.next`;
    await rm(next, { force: true });
    const file = await open(next, "wx", 0o600);
    try {
      await file.writeFile(content);
      await file.sync();
      await rename(next, path);
      await syncDirectory(dirname(path));
    } catch (error) {
      await file.close();
      await rm(next, { force: true });
      throw error;
    }
    await this.#file?.close().catch(() => undefined);
    this.#file = file;
    this.#size = content.length;
    this.#compactedSize = content.length;
    this.#mustRewrite = false;
  }

  #line(key: string, members: readonly string[] = []): string {
    const entry: Entry | undefined = this.#memory.entries.get(key);
    const until = entry?.until === Infinity ? undefined : entry?.until;
    const counted = members.length === 0 ? ([] as const) : ([members] as const);
    const line: Line = entry === undefined ? [key] : [key, entry.value, until, ...counted];
    const text = JSON.stringify(line);
    return `${checksum(text)} ${text}\n`;
  }

  async #read(): Promise<void> {
    const { path } = this.#options;
    let file: FileHandle;
    try {
      file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
    } catch (error) {
      if (error instanceof Error && "code" in error && error.code === "ENOENT") return;
      throw new Error(`${path}: ${messageOf(error)}`, { cause: error });
    }
    try {
      const stat = await file.stat();
      if (!stat.isFile()) throw new Error(`${path} is not a regular file`);
      const { size } = stat;
      if (size > maxFileBytes) throw new Error(`${path} is larger than ${maxFileBytes} bytes`);
      this.#restore(await readFile(file, "utf8"));
    } finally {
      await file.close();
    }
  }

  #restore(text: string): void {
    const lines = text.split("\n");
    // Without its line end, the last one was not finished.
    lines.pop();
    for (const [index, line] of lines.entries()) {
      const found = parseLine(line);
      if (found !== undefined) {
        const [key, value, until = Infinity, counted] = found;
        const members = counted === undefined ? undefined : new Set(counted);
        this.#memory.restore(key, value === undefined ? undefined : { value, until, members });
      } else if (index === 0 || index < lines.length - 1) {
        const { path } = this.#options;
        throw new Error(
          `${path}:${index + 1}: not a line of a state file; move the file away to begin without its state`,
        );
      }
    }
  }
}

function checksum(text: string): string {
  return crc32(text).toString(16).padStart(8, "0");
}

function parseLine(line: string): Line | undefined {
  const text = line.slice(9);
  if (line[8] !== " " || line.slice(0, 8) !== checksum(text)) return undefined;
  // What has its checksum was written by us.
  return (JSON.parse(text) as (string | number | readonly string[] | null)[]).map(
    (one) => one ?? undefined,
  ) as unknown as Line;
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** Held by the kernel until the process ends, however it ends. */
async function lockOf(path: string): Promise<Server | undefined> {
  if (process.platform !== "linux") return undefined;
  const server = createServer((socket) => socket.destroy());
  const name = `\0authbridge-state-${hash("sha256", resolve(path))}`;
  await new Promise<void>((done, reject) => {
    server.once("error", () => reject(new Error(`${path}: another process has this state file`)));
    server.listen({ path: name }, done);
  });
  server.unref();
  return server;
}
