/**
 * A file of lines that grows up to a size and is then set aside: PATH.1 is younger than PATH.2.
 *
 * Writing never holds anybody up and never throws. While the file cannot be written, lines wait up to a bound; further
 * ones are lost and counted, and writing is tried again every second.
 */
import { type FileHandle, mkdir, open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";

/** Options of a {@link LineFile}. */
export interface LineFileOptions {
  readonly path: string;
  /** A new file is begun before this one would become longer. */
  readonly maxBytes: number;
  /** Files that are kept, the current one included. */
  readonly maxFiles: number;
  /** Characters that may wait; 8 MiB when absent. */
  readonly maxPending?: number;
  /** Between two attempts at a file that cannot be written; 1,000 when absent. */
  readonly retryMs?: number;
  /** Called at the first failure of an outage, and at its end (with `undefined`). */
  onState?(error: unknown): void;
  /** Called with the number of lines that were written and of those that are lost. */
  onLines?(result: "written" | "lost", count: number): void;
  /** Called before a full file is set aside; what was written is in it. */
  onFull?(): Promise<unknown>;
  /** Whether lines are on the disk, and not only on their way, when the file is closed. */
  readonly syncs?: boolean;
}

const defaultMaxPending = 8_388_608;
const defaultRetryMs = 1_000;
const closeDeadlineMs = 2_000;
const newline = 10;

/** One growing file. Nobody else may write to it. */
export class LineFile {
  readonly #options: LineFileOptions;
  readonly #maxPending: number;
  #lines: string[] = [];
  #pending = 0;
  /** The rest of a batch of which a part may be on the disk. */
  #rest: Buffer | undefined;
  /** How much of it was written. */
  #restWritten = 0;
  #restLines = 0;
  #file: FileHandle | undefined;
  #size = 0;
  #failing = false;
  #closing = false;
  #running: Promise<void> | undefined;
  #retry: NodeJS.Timeout | undefined;

  constructor(options: LineFileOptions) {
    this.#options = options;
    this.#maxPending = options.maxPending ?? defaultMaxPending;
  }

  /** Whether the file could not be written at the last attempt. */
  get failing(): boolean {
    return this.#failing;
  }

  /** Opens the file, so that one that cannot be written is known before there is a line for it. */
  begin(): void {
    this.#run();
  }

  /** Takes one line without its end; false when there is no room and the line is lost. */
  write(line: string): boolean {
    if (this.#closing || this.#pending + line.length > this.#maxPending) {
      this.#options.onLines?.("lost", 1);
      return false;
    }
    this.#lines.push(line);
    this.#pending += line.length;
    if (this.#retry === undefined) this.#run();
    return true;
  }

  /** Resolves when what was written is on the disk. */
  async sync(): Promise<void> {
    await this.#file?.datasync();
  }

  /** Writes what waits, by its own deadline when the disk does not take it. */
  async close(deadlineMs: number = closeDeadlineMs): Promise<void> {
    this.#closing = true;
    clearTimeout(this.#retry);
    this.#retry = undefined;
    let timer: NodeJS.Timeout | undefined;
    const deadline = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, deadlineMs);
    });
    this.#run();
    await Promise.race([this.#running, deadline]);
    clearTimeout(timer);
    const lost = this.#lines.length + this.#restLines;
    if (lost > 0) this.#options.onLines?.("lost", lost);
    await Promise.race([this.#end().catch(() => undefined), deadline]);
  }

  async #end(): Promise<void> {
    if (this.#options.syncs === true) await this.sync();
    const file = this.#file;
    // Nobody syncs what is being closed.
    this.#file = undefined;
    await file?.close();
  }

  #run(): void {
    this.#running ??= this.#drain().finally(() => {
      this.#running = undefined;
      if (this.#lines.length > 0 && this.#retry === undefined && !this.#closing) this.#run();
    });
  }

  async #drain(): Promise<void> {
    try {
      if (!this.#closing) this.#file ??= await this.#open();
      if (this.#failing && this.#pending === 0) this.#changeState(undefined);
      while (this.#rest !== undefined || this.#lines.length > 0) {
        await this.#write();
        if (this.#failing) this.#changeState(undefined);
      }
    } catch (error) {
      if (!this.#failing) this.#changeState(error);
      // It may have been removed, or its disk may be another one by then.
      const file = this.#file;
      this.#file = undefined;
      await file?.close().catch(() => undefined);
      if (this.#closing) return;
      this.#retry = setTimeout(() => {
        this.#retry = undefined;
        this.#run();
      }, this.#options.retryMs ?? defaultRetryMs).unref();
    }
  }

  #changeState(error: unknown): void {
    this.#failing = error !== undefined;
    this.#options.onState?.(error);
  }

  async #write(): Promise<void> {
    if (this.#rest === undefined) {
      const lines = this.#lines.splice(0, this.#fitting());
      this.#rest = Buffer.from(`${lines.join("\n")}\n`);
      this.#restLines = lines.length;
    }
    const file = await this.#room(this.#rest.length - this.#restWritten);
    while (this.#restWritten < this.#rest.length) {
      const { bytesWritten } = await file.write(this.#rest, this.#restWritten);
      this.#size += bytesWritten;
      this.#restWritten += bytesWritten;
    }
    this.#rest = undefined;
    this.#restWritten = 0;
    const written = this.#restLines;
    this.#restLines = 0;
    this.#options.onLines?.("written", written);
    this.#pending = this.#lines.reduce((sum, line) => sum + line.length, 0);
  }

  /** How many of the lines that wait fit into the file as it is; one at least, which may begin a new one. */
  #fitting(): number {
    let bytes = this.#size;
    const end = this.#lines.findIndex((line, index) => {
      bytes += Buffer.byteLength(line) + 1;
      return index > 0 && bytes > this.#options.maxBytes;
    });
    return end === -1 ? this.#lines.length : end;
  }

  /** The open file, a new one where the batch would make the old one too long. */
  async #room(bytes: number): Promise<FileHandle> {
    const file = this.#file ?? (await this.#open());
    const isWithinLine = this.#restWritten > 0 && !this.#isAtLine();
    if (this.#size === 0 || isWithinLine || this.#size + bytes <= this.#options.maxBytes) {
      return file;
    }
    await this.#options.onFull?.();
    await this.#end();
    await this.#setAside();
    return this.#open();
  }

  async #open(): Promise<FileHandle> {
    const { path } = this.#options;
    // One level, and not recursive: Node never comes back from a recursive mkdir where the system answers ENOENT (/proc).
    await mkdir(dirname(path), { mode: 0o700 }).catch(ignoreExisting);
    // Events show what agents do: readable by the owner only.
    const file = await open(path, "a+", 0o600);
    this.#file = file;
    const left = this.#size;
    this.#size = (await file.stat()).size;
    // The disk was full within a line, and is the same one: the line goes on.
    if (this.#restWritten > 0 && !this.#isAtLine() && this.#size === left) return file;
    if (this.#size > 0 && !(await endsWithNewline(file, this.#size))) {
      // The process or the disk ended within a line.
      this.#size += (await file.write("\n")).bytesWritten;
    }
    // A line that was begun in another file is written whole in this one.
    while (this.#restWritten > 0 && !this.#isAtLine()) this.#restWritten -= 1;
    return file;
  }

  /** Whether the next byte begins a line. */
  #isAtLine(): boolean {
    return this.#rest?.[this.#restWritten - 1] === newline;
  }

  async #setAside(): Promise<void> {
    const { path, maxFiles } = this.#options;
    // More than one where fewer are kept than before.
    for (let number = Math.max(1, maxFiles - 1); await removed(`${path}.${number}`);) number += 1;
    if (maxFiles <= 1) {
      await rm(path, { force: true });
      return;
    }
    for (let number = maxFiles - 2; number >= 1; number -= 1) {
      await rename(`${path}.${number}`, `${path}.${number + 1}`).catch(ignoreMissing);
    }
    await rename(path, `${path}.1`);
  }
}

/** Whether there was one. */
async function removed(path: string): Promise<boolean> {
  return rm(path).then(() => true, ignoreMissing);
}

async function endsWithNewline(file: FileHandle, size: number): Promise<boolean> {
  const last = Buffer.alloc(1);
  await file.read(last, 0, 1, size - 1);
  return last[0] === newline;
}

/** Whether it is a directory shows when the file is opened. */
function ignoreExisting(error: unknown): void {
  if (error instanceof Error && "code" in error && error.code === "EEXIST") return;
  throw error;
}

function ignoreMissing(error: unknown): false {
  if (error instanceof Error && "code" in error && error.code === "ENOENT") return false;
  throw error;
}
