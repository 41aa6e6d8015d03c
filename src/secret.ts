/**
 * Secrets: values that do not print themselves, and the places that they come from.
 */
import { watch, type FSWatcher } from "node:fs";
import { open } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { inspect } from "node:util";

const hidden = "[secret]";

/** A text that only `reveal()` gives out. Printed, inspected or serialised it reads "[secret]". */
export class Secret {
  readonly #text: string;

  constructor(text: string) {
    this.#text = text;
  }

  /** The text itself. Call this at the last line before the wire. */
  reveal(): string {
    return this.#text;
  }

  toString(): string {
    return hidden;
  }

  toJSON(): string {
    return hidden;
  }

  [Symbol.toPrimitive](): string {
    return hidden;
  }

  [inspect.custom](): string {
    return hidden;
  }
}

/** Where a secret is written: in the configuration, in an environment variable, or in a file of its own. */
export type SecretOrigin =
  | { readonly literal: string }
  | { readonly env: string; readonly environment: Readonly<Record<string, string | undefined>> }
  | { readonly file: string };

/** Settings of a {@link SecretSource}. */
export interface SecretSourceOptions {
  /** Told when a secret cannot be had, in words that name its place and never its value. */
  readonly onProblem?: (message: string) => void;
  /** How often a file is read again although no change was seen. */
  readonly pollIntervalMs?: number;
  /** How often a file that is not there is looked for. */
  readonly missingIntervalMs?: number;
  /** How often a problem that stays is told again. */
  readonly remindIntervalMs?: number;
}

/** Credentials are short; a larger file is a wrong path. */
const maxFileBytes = 64 * 1024;

/**
 * A secret that may not be there yet and that may change.
 *
 * A file is read at `start()` and whenever it changes. A file that is missing, empty or unreadable leaves the last
 * good value in use, because writers that do not rename leave such a gap.
 */
export class SecretSource {
  readonly #origin: SecretOrigin;
  readonly #onProblem: (message: string) => void;
  readonly #pollIntervalMs: number;
  readonly #missingIntervalMs: number;
  readonly #remindIntervalMs: number;
  readonly #listeners = new Set<(secret: Secret) => void>();
  #current: Secret | undefined;
  #watcher: FSWatcher | undefined;
  #timer: NodeJS.Timeout | undefined;
  #isReading = false;
  #isStale = false;
  #isClosed = false;
  #problem: string | undefined;
  #toldAt = 0;

  constructor(origin: SecretOrigin, options: SecretSourceOptions = {}) {
    this.#origin = origin;
    this.#onProblem = options.onProblem ?? (() => undefined);
    this.#pollIntervalMs = options.pollIntervalMs ?? 30_000;
    this.#missingIntervalMs = options.missingIntervalMs ?? 1000;
    this.#remindIntervalMs = options.remindIntervalMs ?? 60_000;
    if ("literal" in origin) this.#take(origin.literal);
  }

  /** The secret, or undefined while there is none yet. */
  current(): Secret | undefined {
    return this.#current;
  }

  /** Reads the secret for the first time, and keeps watching a file. Does not wait for a file that is missing. */
  async start(): Promise<void> {
    const origin = this.#origin;
    if ("literal" in origin) {
      if (this.#current === undefined) this.#report("the secret is empty");
    } else if ("env" in origin) {
      const text = origin.environment[origin.env]?.trim();
      if (text) this.#take(text);
      else this.#report(`environment variable ${origin.env} is not set or is empty`);
    } else {
      // Watching comes before reading: a change between the two is then seen.
      this.#watch(origin.file);
      await this.#refresh(origin.file);
    }
  }

  /** Calls `listener` with each new value, the first value of a file included. Returns the function that ends this. */
  onChange(listener: (secret: Secret) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Stops watching. The last value stays readable. */
  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#unwatch();
    this.#listeners.clear();
  }

  #take(written: string): boolean {
    const text = written.trim();
    if (text === "") return false;
    this.#problem = undefined;
    if (this.#current?.reveal() === text) return true;
    const secret = new Secret(text);
    this.#current = secret;
    for (const listener of this.#listeners) listener(secret);
    return true;
  }

  #report(message: string): void {
    const now = performance.now();
    if (message === this.#problem && now - this.#toldAt < this.#remindIntervalMs) return;
    this.#problem = message;
    this.#toldAt = now;
    this.#onProblem(message);
  }

  /** One read at a time; a change during a read is followed by another read. */
  async #refresh(path: string): Promise<void> {
    this.#isStale = true;
    if (this.#isReading) return;
    this.#isReading = true;
    clearTimeout(this.#timer);
    let isThere = false;
    while (this.#isStale && !this.#isClosed) {
      this.#isStale = false;
      isThere = await this.#read(path);
    }
    this.#isReading = false;
    if (this.#isClosed) return;
    this.#timer = setTimeout(
      () => {
        // A directory that was replaced takes its watch along, so each poll watches afresh.
        this.#watch(path);
        void this.#refresh(path);
      },
      isThere ? this.#pollIntervalMs : this.#missingIntervalMs,
    );
    this.#timer.unref();
  }

  async #read(path: string): Promise<boolean> {
    let text: string;
    try {
      text = await readShort(path);
    } catch (error) {
      const code = error instanceof Error && "code" in error ? String(error.code) : "unknown error";
      if (!this.#isClosed) {
        this.#report(
          `file ${path} ${code === "ENOENT" ? "is not there yet" : `cannot be read (${code})`}`,
        );
      }
      return false;
    }
    if (this.#isClosed) return false;
    if (this.#take(text)) return true;
    this.#report(`file ${path} is empty`);
    return false;
  }

  /** The directory is watched and not the file: Kubernetes swaps the link `..data` and never touches the file. */
  #watch(path: string): void {
    this.#unwatch();
    const name = basename(path);
    try {
      const watcher = watch(dirname(path), { persistent: false }, (_, changed) => {
        if (changed === null || changed === name || changed === "..data") void this.#refresh(path);
      });
      watcher.on("error", () => this.#unwatch());
      this.#watcher = watcher;
    } catch {
      // The directory is not there yet or watches are used up: the poll goes on without.
    }
  }

  #unwatch(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
  }
}

/** The first bytes of a file; longer files are refused. */
async function readShort(path: string): Promise<string> {
  const file = await open(path, "r");
  try {
    const buffer = Buffer.alloc(maxFileBytes + 1);
    let total = 0;
    while (total < buffer.length) {
      const { bytesRead } = await file.read(buffer, total, buffer.length - total, null);
      if (bytesRead === 0) break;
      total += bytesRead;
    }
    if (total > maxFileBytes) throw Object.assign(new Error("too large"), { code: "EFBIG" });
    return buffer.toString("utf8", 0, total);
  } finally {
    await file.close();
  }
}
