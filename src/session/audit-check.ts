/** Verifies a decision log: every line whole, every line following the one before it. */
import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";
import { linkOf } from "./audit-record.ts";

/** What a check found. Files are read in the order in which they are given, the oldest first. */
export interface AuditVerdict {
  readonly records: number;
  /** Where the chain begins and ends; absent for a log without a record. */
  readonly first?: { readonly sequence: number; readonly previous: string } | undefined;
  readonly last?: { readonly sequence: number; readonly hash: string } | undefined;
  readonly problems: readonly AuditProblem[];
}

/** One thing that is wrong. */
export interface AuditProblem {
  readonly file: string;
  /** From 1. */
  readonly line: number;
  readonly message: string;
}

const maxProblems = 20;

/** Reads whole logs line by line; rejects where a file cannot be read. */
export async function checkAuditLog(files: readonly string[]): Promise<AuditVerdict> {
  const problems: AuditProblem[] = [];
  let records = 0;
  let first: AuditVerdict["first"];
  let last: AuditVerdict["last"];
  for (const file of files) {
    let number = 0;
    for await (const line of createInterface({
      input: createReadStream(file),
      crlfDelay: Infinity,
    })) {
      number += 1;
      const link = linkOf(line);
      const message =
        link === undefined
          ? "is not a whole record: its digest does not fit its text"
          : broken(last, link);
      if (message !== undefined && problems.length < maxProblems) {
        problems.push({ file, line: number, message });
      }
      if (link === undefined) continue;
      records += 1;
      first ??= { sequence: link.sequence, previous: link.previous };
      last = { sequence: link.sequence, hash: link.hash };
    }
  }
  return { records, problems, first, last };
}

function broken(
  last: AuditVerdict["last"],
  link: { readonly sequence: number; readonly previous: string },
): string | undefined {
  if (last === undefined) return undefined;
  if (link.previous === last.hash && link.sequence === last.sequence + 1) return undefined;
  return `record ${link.sequence} does not follow record ${last.sequence}: something between them was changed, removed or added`;
}
