/** Files that a person names: on the command line, or the configuration itself. They may be anything, and pipes as well. */
import { constants } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import { setTimeout as after } from "node:timers/promises";
import { messageOf, ProxyError } from "../errors.ts";

const chunkBytes = 256 * 1024;
const pollMs = 20;
/** How long a pipe may be silent: a shell's `<(…)` takes its time, one that nobody writes to would be waited for without end. */
const silenceMs = 10_000;

/** How a pipe is waited for. */
export interface PipePatience {
  readonly silenceMs: number;
}

/**
 * The bytes of a file, or of what somebody writes into a pipe.
 *
 * It is opened without waiting for a writer: an open that waits keeps a thread, and the process could not even exit.
 */
export async function* bytesOf(
  path: string,
  patience: PipePatience = { silenceMs },
): AsyncGenerator<Buffer> {
  const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
  try {
    let hasWriter = !(await file.stat()).isFIFO();
    let heardAt = performance.now();
    for (;;) {
      const chunk = Buffer.allocUnsafe(chunkBytes);
      const bytes = await readSome(file, chunk);
      if (bytes === 0 && hasWriter) return;
      if (bytes) {
        hasWriter = true;
        yield chunk.subarray(0, bytes);
        heardAt = performance.now();
      } else if (performance.now() - heardAt < patience.silenceMs) await after(pollMs);
      else throw new Error(`nobody writes into this pipe (${patience.silenceMs / 1_000} s)`);
    }
  } finally {
    await file.close();
  }
}

/** Undefined where a writer has nothing yet. */
async function readSome(file: FileHandle, into: Buffer): Promise<number | undefined> {
  try {
    return (await file.read(into, 0, into.length, null)).bytesRead;
  } catch (error) {
    if (codeOf(error) === "EAGAIN") return undefined;
    throw error;
  }
}

/** All of it, or what is wrong in words that go behind its name; a longer one is not read to its end. */
export async function readGiven(
  path: string,
  maxBytes: number,
  patience?: PipePatience,
): Promise<Buffer | string> {
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    for await (const chunk of bytesOf(path, patience)) {
      chunks.push(chunk);
      length += chunk.length;
      if (length > maxBytes) return `is larger than ${maxBytes / 1_048_576} MiB`;
    }
  } catch (error) {
    return `cannot be read: ${whyUnusable(error)}`;
  }
  return Buffer.concat(chunks, length);
}

/** Its text; throws ProxyError `config.invalid` that names it. */
export async function textOfGiven(path: string, maxBytes: number): Promise<string> {
  const bytes = await readGiven(path, maxBytes);
  if (typeof bytes === "string") throw new ProxyError("config.invalid", `${path} ${bytes}`);
  return bytes.toString("utf8");
}

/** A fault of a file that a person named. */
export function unreadable(path: string, error: unknown): ProxyError {
  const message = `${path} cannot be read: ${whyUnusable(error)}`;
  return new ProxyError("config.invalid", message, { cause: error });
}

const reasons: Readonly<Record<string, string>> = {
  ENOENT: "there is no such file",
  EACCES: "permission denied",
  EPERM: "permission denied",
  EISDIR: "it is a directory",
  ENOTDIR: "a part of its path is not a directory",
  ELOOP: "its symbolic links form a loop",
  ENAMETOOLONG: "its name is too long",
  ENXIO: "it is a socket, or a device that is not there",
  EIO: "the device does not let itself be read",
  EMFILE: "this process has too many files open (ulimit -n)",
  EROFS: "the file system can only be read",
  ENOSPC: "no space is left",
};

/** Why the system refused, in words. */
export function whyUnusable(error: unknown): string {
  return reasons[codeOf(error) ?? ""] ?? messageOf(error);
}

function codeOf(error: unknown): string | undefined {
  return error instanceof Error && "code" in error ? String(error.code) : undefined;
}
