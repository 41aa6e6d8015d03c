/** Verifies a decision log: every line whole and following the one before it, and all of them what its checkpoints say. */
import { isUtf8 } from "node:buffer";
import { messageOf } from "../errors.ts";
import { firstLink, linkOf } from "../session/audit-record.ts";
import { type Checkpoint, readCheckpoint, signerOf } from "./checkpoint.ts";
import { linesOf } from "./lines.ts";
import { CompactTree, leafHash } from "./merkle.ts";
import type { CheckingKey } from "./signing-key.ts";

/** What a check found. Files are read in the order in which they are given, the oldest first. */
export interface AuditVerdict {
  readonly records: number;
  /** Where the chain begins and ends; absent for a log without a record. */
  readonly first?: { readonly sequence: number; readonly previous: string } | undefined;
  readonly last?: { readonly sequence: number; readonly hash: string } | undefined;
  readonly checkpoints: CheckpointCounts;
  /** The last record of which a checkpoint tells; 0 where none tells of any. */
  readonly lastFit: number;
  readonly problems: readonly AuditProblem[];
}

/** How many checkpoints there were, and what could be said of them. */
export interface CheckpointCounts {
  read: number;
  /** Those that fit the log: its chain, and its tree where the beginning of that is known. */
  fit: number;
  /** Those with a signature by a key that was given, or that such a key named. */
  signed: number;
}

/** One thing that is wrong. */
export interface AuditProblem {
  readonly file: string;
  /** From 1. */
  readonly line: number;
  readonly message: string;
}

/** What a log is compared with. */
export interface AuditEvidence {
  /** Files of checkpoints, the oldest first, and of single notes. */
  readonly checkpoints?: readonly string[];
  /** Further ones, kept elsewhere: one that holds none is no evidence, and said to be. */
  readonly kept?: readonly string[];
  /** Without them nothing is said of signatures. */
  readonly keys?: readonly CheckingKey[] | undefined;
  /** Whether checkpoints may tell of later records: the newest file of the log was not given. */
  readonly isPart?: boolean;
  /** The file that follows the ones that were given: its first record tells whether their end is there. */
  readonly following?: string | undefined;
}

interface Placed extends Checkpoint {
  readonly file: string;
  readonly line: number;
}

export const maxProblems = 20;
const carriageReturn = 13;
/** Trees that one log may have: a new one begins where the beginning of the old one was lost. */
const maxTrees = 16;

/** Reads whole logs line by line; rejects where a file cannot be read. */
export async function checkAuditLog(
  files: readonly string[],
  evidence: AuditEvidence = {},
): Promise<AuditVerdict> {
  const check = new Check(evidence.keys);
  for (const file of evidence.checkpoints ?? []) await check.readCheckpoints(file);
  for (const file of evidence.kept ?? []) await check.readCheckpoints(file, true);
  for (const file of files) {
    let number = 0;
    for await (const line of linesOf(file)) check.take(line, { file, line: (number += 1) });
  }
  check.end(evidence.isPart ?? false);
  if (evidence.following !== undefined) {
    for await (const line of linesOf(evidence.following)) {
      if (check.isFollowedBy(line, evidence.following)) break;
    }
  }
  return check;
}

class Check implements AuditVerdict {
  readonly problems: AuditProblem[] = [];
  readonly checkpoints: CheckpointCounts = { read: 0, fit: 0, signed: 0 };
  records = 0;
  first: AuditVerdict["first"];
  last: AuditVerdict["last"];
  readonly #keys: CheckingKey[] | undefined;
  readonly #bySequence = new Map<number, Placed[]>();
  /** By the sequence of the record that is their first entry. */
  readonly #trees = new Map<number, CompactTree>();
  #lastPlace = { file: "", line: 0 };
  lastFit = 0;

  constructor(keys: readonly CheckingKey[] | undefined) {
    this.#keys = keys && [...keys];
  }

  async readCheckpoints(file: string, isKept = false): Promise<void> {
    let number = 0;
    let note = "";
    let isNone = true;
    for await (const bytes of linesOf(file)) {
      number += 1;
      const text = bytes.toString();
      if (text.trim() !== "") isNone = false;
      // A note has several lines, and ends with its signature.
      if (note === "" && text.startsWith("{")) this.#place(text, file, number);
      else {
        note += `${text}\n`;
        if (!text.startsWith("\u2014 ")) continue;
        this.#place(note, file, number);
        note = "";
      }
    }
    if (note.trim() !== "") this.#problem({ file, line: number }, "is no checkpoint");
    if (isNone && isKept) this.#problem({ file, line: 1 }, "holds no checkpoint");
  }

  take(line: Buffer, place: { readonly file: string; readonly line: number }): void {
    const link = linkIn(line);
    if (link === undefined) {
      const end = line.at(-1) === carriageReturn ? ": it ends with a carriage return" : "";
      this.#problem(place, `is not a whole record: its digest does not fit its text${end}`);
      return;
    }
    this.#lastPlace = place;
    const { sequence, previous, hash } = link;
    if (this.last !== undefined) {
      if (previous !== this.last.hash || sequence !== this.last.sequence + 1) {
        const between = `record ${sequence} does not follow record ${this.last.sequence}`;
        this.#problem(place, `${between}: something between them was changed, removed or added`);
      }
    } else {
      if ((sequence === 1) !== (previous === firstLink)) {
        this.#problem(place, `record ${sequence} follows ${previous}: no log begins like this`);
      }
      this.#begin(sequence, previous);
    }
    this.records += 1;
    this.first ??= { sequence, previous };
    this.last = { sequence, hash };
    if (this.#begins.has(sequence)) this.#trees.set(sequence, new CompactTree());
    const leaf = leafHash(line);
    for (const tree of this.#trees.values()) tree.add(leaf);
    for (const checkpoint of this.#bySequence.get(sequence) ?? []) this.#compare(checkpoint);
  }

  end(isPart: boolean): void {
    const { first, last } = this;
    for (const placed of this.#bySequence.values()) {
      for (const { sequence, file, line, time } of placed) {
        if (last !== undefined && sequence <= last.sequence) {
          const isMissing = first !== undefined && sequence >= first.sequence;
          if (isMissing && !this.#seen.has(sequence)) {
            this.#problem({ file, line }, `tells of record ${sequence}, which is not in the log`);
          }
          continue;
        }
        if (isPart) continue;
        const ends = last === undefined ? "has no record" : `ends with record ${last.sequence}`;
        const where = last === undefined ? { file, line } : this.#lastPlace;
        this.#problem(
          where,
          `the log ${ends}, but the checkpoint of ${time} (${file}:${line}) tells of record ${sequence}: the end was cut off`,
        );
        return;
      }
    }
  }

  /** False where the line is no record, so that the next one tells. */
  isFollowedBy(line: Buffer, file: string): boolean {
    const link = linkIn(line);
    if (link === undefined) return false;
    const { sequence, hash } = this.last ?? { sequence: 0, hash: firstLink };
    if (link.previous !== hash || link.sequence !== sequence + 1) {
      const ends = `the files end with record ${sequence}`;
      const goesOn = `but ${file} goes on with record ${link.sequence}`;
      this.#problem(this.#lastPlace, `${ends}, ${goesOn}: the end was cut off or changed`);
    }
    return true;
  }

  readonly #begins = new Set<number>();
  readonly #seen = new Set<number>();

  #place(text: string, file: string, line: number): void {
    let checkpoint: Checkpoint;
    try {
      checkpoint = readCheckpoint(text);
    } catch (error) {
      this.#problem({ file, line }, `is no whole checkpoint: ${messageOf(error)}`);
      return;
    }
    this.checkpoints.read += 1;
    if (this.#keys !== undefined && !this.#isSigned(checkpoint)) {
      this.#problem(
        { file, line },
        "has no signature by a key that was given, or was named by one",
      );
      return;
    }
    const { sequence, size } = checkpoint;
    const others = this.#bySequence.get(sequence);
    const placed = { ...checkpoint, file, line };
    const another = others?.find(({ hash }) => hash !== checkpoint.hash);
    if (another !== undefined) {
      const than = `than the checkpoint of ${another.time} (${another.file}:${another.line})`;
      this.#problem(placed, `tells of another record ${sequence} ${than}: there were two logs`);
    }
    if (others === undefined) this.#bySequence.set(sequence, [placed]);
    else others.push(placed);
    if (this.#begins.size < maxTrees) this.#begins.add(sequence - size + 1);
  }

  #isSigned(checkpoint: Checkpoint): boolean {
    if (signerOf(checkpoint, this.#keys ?? []) === undefined) return false;
    this.checkpoints.signed += 1;
    // Whoever is trusted with the log is trusted with who comes next.
    if (checkpoint.next !== undefined) this.#keys?.push(checkpoint.next);
    return true;
  }

  /** The log goes on from a record that was not given: checkpoints know what was before it. */
  #begin(sequence: number, previous: string): void {
    for (const checkpoint of this.#bySequence.get(sequence - 1) ?? []) {
      const { tree, hash, size } = checkpoint;
      if (hash !== previous) {
        this.#problem(checkpoint, `says that record ${sequence - 1} was another one`);
      } else if (tree !== undefined) this.#trees.set(sequence - size, tree.copy());
    }
  }

  #compare(checkpoint: Placed): void {
    const { sequence, size, hash, root, time, file, line } = checkpoint;
    this.#seen.add(sequence);
    const tree = this.#trees.get(sequence - size + 1);
    const says = `record ${sequence} is not what the checkpoint of ${time} (${file}:${line}) signed`;
    const since = `a line after record ${this.lastFit} was changed and the chain made anew`;
    if (hash !== this.last?.hash) this.#problem(this.#lastPlace, `${says}: ${since}`);
    else if (tree !== undefined && (tree.size !== size || !tree.root().equals(root))) {
      this.#problem(this.#lastPlace, `${says}: the root of its tree is another one`);
    } else {
      this.checkpoints.fit += 1;
      this.lastFit = sequence;
    }
  }

  #problem(
    { file, line }: { readonly file: string; readonly line: number },
    message: string,
  ): void {
    if (this.problems.length < maxProblems) this.problems.push({ file, line, message });
  }
}

/** Bytes that are no UTF-8 would be read as if they were others. */
function linkIn(line: Buffer): ReturnType<typeof linkOf> {
  return isUtf8(line) ? linkOf(line.toString()) : undefined;
}
