/**
 * Where log lines go: a buffer in front of a file descriptor, which may be slow, full or broken without harm.
 *
 * A synchronous write would stop all traffic while the reader of stderr is slow, and would throw when it is closed.
 */
import { write, writeSync } from "node:fs";

/** The two calls of the system that a {@link LogDestination} needs; tests give their own. */
export interface LogFileSystem {
  write(
    fd: number,
    bytes: Buffer,
    done: (error: NodeJS.ErrnoException | null, written: number) => void,
  ): void;
  writeSync(fd: number, bytes: Buffer): number;
}

/** Bounds of a {@link LogDestination}. */
export interface LogDestinationOptions {
  /** Lines wait at most this long for company. */
  readonly flushMs?: number;
  /** A batch is written as soon as it is this long. */
  readonly batchChars?: number;
  /** Further lines are dropped and counted while this much waits. */
  readonly maxChars?: number;
  readonly fileSystem?: LogFileSystem;
}

const defaults = { flushMs: 100, batchChars: 65_536, maxChars: 4_194_304 };
const retryMs = 50;
const brokenRetryMs = 1_000;
const closeDeadlineMs = 1_000;
const systemFiles: LogFileSystem = {
  write: (fd, bytes, done) => write(fd, bytes, (error, written) => done(error, written)),
  writeSync: (fd, bytes) => writeSync(fd, bytes),
};

/** One file descriptor, which is never closed here. */
export class LogDestination {
  readonly #fd: number;
  readonly #flushMs: number;
  readonly #batchChars: number;
  readonly #maxChars: number;
  readonly #files: LogFileSystem;
  #lines: string[] = [];
  #chars = 0;
  #dropped = 0;
  #droppedTotal = 0;
  /** Bytes of the batch that is being written. */
  #writing: Buffer | undefined;
  /** True from the call of the system until it returns: the descriptor may be blocked. */
  #isInFlight = false;
  #timer: NodeJS.Timeout | undefined;
  #waiters: (() => void)[] = [];

  constructor(fd: number, options: LogDestinationOptions = {}) {
    this.#fd = fd;
    this.#flushMs = options.flushMs ?? defaults.flushMs;
    this.#batchChars = options.batchChars ?? defaults.batchChars;
    this.#maxChars = options.maxChars ?? defaults.maxChars;
    this.#files = options.fileSystem ?? systemFiles;
  }

  /** Lines that were lost because the descriptor did not take them. */
  get dropped(): number {
    return this.#droppedTotal;
  }

  /** Takes one line. Never blocks and never throws. */
  write(line: string): void {
    if (this.#chars + line.length > this.#maxChars) {
      this.#countDropped(1);
      return;
    }
    this.#lines.push(line);
    this.#chars += line.length;
    if (this.#writing !== undefined) return;
    if (this.#chars >= this.#batchChars) this.#start();
    else this.#timer ??= setTimeout(() => this.#start(), this.#flushMs).unref();
  }

  /** Starts writing; `done` is called when everything that waits now was written or given up. */
  flush(done?: () => void): void {
    if (done !== undefined) this.#waiters.push(done);
    if (this.#writing === undefined) this.#start();
  }

  /** Writes what is left before the process ends, by its own deadline when the descriptor does not take it. */
  close(deadlineMs: number = closeDeadlineMs): Promise<void> {
    return new Promise((resolve) => {
      const deadline = setTimeout(resolve, deadlineMs);
      this.flush(() => {
        clearTimeout(deadline);
        resolve();
      });
    });
  }

  /** The last resort, for the process's `exit` event: writes at once, unless the descriptor is known to block. */
  flushSync(): void {
    if (this.#isInFlight) return;
    try {
      let rest = Buffer.concat([this.#writing ?? Buffer.alloc(0), this.#take()]);
      this.#writing = undefined;
      while (rest.length > 0) rest = rest.subarray(this.#files.writeSync(this.#fd, rest));
    } catch {
      // A broken stderr at the very end: there is nobody left to tell.
    }
  }

  #start(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#writing === undefined) {
      if (this.#lines.length === 0) {
        this.#settle();
        return;
      }
      this.#writing = this.#take();
    }
    const bytes = this.#writing;
    this.#isInFlight = true;
    this.#files.write(this.#fd, bytes, (error, written) => {
      this.#isInFlight = false;
      if (error === null) this.#wrote(bytes, written);
      else this.#failed(bytes, error);
    });
  }

  #wrote(bytes: Buffer, written: number): void {
    this.#writing = written < bytes.length ? bytes.subarray(written) : undefined;
    if (
      this.#writing !== undefined ||
      this.#chars >= this.#batchChars ||
      this.#waiters.length > 0
    ) {
      this.#start();
    } else if (this.#lines.length > 0) {
      this.#timer = setTimeout(() => this.#start(), this.#flushMs).unref();
    }
  }

  #failed(bytes: Buffer, error: NodeJS.ErrnoException): void {
    const isBusy = error.code === "EAGAIN" || error.code === "EINTR";
    if (!isBusy) {
      // EPIPE, ENOSPC, EIO: this batch is lost; a disk may have room again later.
      this.#countDropped(countLines(bytes));
      this.#writing = undefined;
      this.#settle();
    }
    this.#timer = setTimeout(() => this.#start(), isBusy ? retryMs : brokenRetryMs).unref();
  }

  /** Empties the buffer, with a line about what was lost in front. */
  #take(): Buffer {
    if (this.#dropped > 0) {
      const time = new Date().toISOString();
      const lost = { level: "warn", time, dropped: this.#dropped, msg: "log lines dropped" };
      this.#lines.unshift(`${JSON.stringify(lost)}\n`);
      this.#dropped = 0;
    }
    const batch = Buffer.from(this.#lines.join(""));
    this.#lines = [];
    this.#chars = 0;
    return batch;
  }

  #countDropped(lines: number): void {
    this.#dropped += lines;
    this.#droppedTotal += lines;
  }

  #settle(): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) waiter();
  }
}

function countLines(bytes: Buffer): number {
  let lines = 0;
  for (let at = bytes.indexOf(10); at !== -1; at = bytes.indexOf(10, at + 1)) lines += 1;
  return lines;
}
