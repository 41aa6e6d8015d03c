/** `audit export`: the decisions of a log for another system, one JSON object a line. */
import { messageOf } from "../../errors.ts";
import { linesOf } from "../../receipts/lines.ts";
import { ocsfOf } from "../../receipts/ocsf.ts";
import { print } from "../standard-streams.ts";
import { packageVersion } from "../version.ts";

/** Prints them in order; resolves with the exit code, 1 where a line is no decision or a file cannot be read. */
export async function exportAudit({
  files,
}: {
  readonly files: readonly string[];
}): Promise<number> {
  let skipped = 0;
  try {
    for (const file of files) {
      for await (const line of linesOf(file)) {
        const event = ocsfOf(line.toString(), packageVersion());
        if (event === undefined) skipped += 1;
        // `| head` has seen enough.
        else if (!(await print(`${JSON.stringify(event)}\n`))) return 0;
      }
    }
  } catch (error) {
    process.stderr.write(`authbridge-proxy: ${messageOf(error)}\n`);
    return 1;
  }
  if (skipped === 0) return 0;
  process.stderr.write(`authbridge-proxy: ${skipped} lines are no decisions: see verify-audit\n`);
  return 1;
}
