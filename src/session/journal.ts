/** Keeps events in a file and gives them back at the next start (`session.persist`). */
import { parseJsonObject } from "../http/json-access.ts";
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { createInterface } from "node:readline";
import type { SessionEvent } from "./event.ts";
import type { LineFile } from "./line-file.ts";
import type { StoredEvent } from "./session.ts";

/** A move of events to the session that they turned out to belong to. */
export interface Rekeying {
  readonly from: string;
  readonly to: string;
  readonly requestIds: readonly string[];
}

/** What a journal's lines are restored into. */
export interface Restorable {
  restore(sequence: number, event: SessionEvent): void;
  rekey(from: string, to: string, flows: ReadonlySet<string>): void;
}

const maxLineBytes = 16 * 1_048_576;

/** Writes what the store keeps. */
export class Journal {
  readonly #file: LineFile;

  constructor(file: LineFile) {
    this.#file = file;
  }

  kept({ sequence, event }: StoredEvent): void {
    this.#file.write(JSON.stringify({ sequence, event }));
  }

  moved(rekeying: Rekeying): void {
    this.#file.write(JSON.stringify({ rekey: rekeying }));
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

/**
 * Restores the files of a journal, oldest first. Lines that are not its own (a torn one, another format) are skipped and
 * counted; a file that is not there is none.
 */
export async function restoreJournal(
  path: string,
  maxFiles: number,
  into: Restorable,
): Promise<{ readonly restored: number; readonly skipped: number }> {
  const totals = { restored: 0, skipped: 0 };
  for (let number = maxFiles - 1; number >= 0; number -= 1) {
    await restoreFile(number === 0 ? path : `${path}.${number}`, into, totals);
  }
  return totals;
}

async function isRegular(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isFile();
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return false;
    throw error;
  }
}

async function restoreFile(
  path: string,
  into: Restorable,
  totals: { restored: number; skipped: number },
): Promise<void> {
  // A device or a pipe may have no end.
  if (!(await isRegular(path))) return;
  const stream = createReadStream(path, { encoding: "utf8" });
  try {
    for await (const line of createInterface({ input: stream, crlfDelay: Infinity })) {
      if (line === "") continue;
      if (line.length <= maxLineBytes && restoreLine(line, into)) totals.restored += 1;
      else totals.skipped += 1;
    }
  } catch (error) {
    if (!(error instanceof Error && "code" in error && error.code === "ENOENT")) throw error;
  } finally {
    stream.destroy();
  }
}

function restoreLine(line: string, into: Restorable): boolean {
  const { rekey, sequence, event } = parseJsonObject(line) ?? {};
  if (isRekeying(rekey)) {
    into.rekey(rekey.from, rekey.to, new Set(rekey.requestIds));
    return true;
  }
  if (typeof sequence !== "number" || !Number.isSafeInteger(sequence) || !isEvent(event))
    return false;
  into.restore(sequence, event);
  return true;
}

function isEvent(value: unknown): value is SessionEvent {
  if (typeof value !== "object" || value === null) return false;
  const { sessionId, at, direction, phase, requestId, host } = value as Record<string, unknown>;
  const hasTexts = [sessionId, at, requestId, host].every((text) => typeof text === "string");
  const isKnown =
    /^(?:inbound|outbound)$/.test(String(direction)) &&
    /^(?:request|response|denied)$/.test(String(phase));
  return hasTexts && isKnown && !Number.isNaN(Date.parse(String(at)));
}

function isRekeying(value: unknown): value is Rekeying {
  if (typeof value !== "object" || value === null) return false;
  const { from, to, requestIds } = value as Record<string, unknown>;
  return typeof from === "string" && typeof to === "string" && Array.isArray(requestIds);
}
