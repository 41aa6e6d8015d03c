/** `verify-audit`: says whether a decision log is whole. */
import { messageOf } from "../errors.ts";
import { checkAuditLog } from "../session/audit-check.ts";

/** Resolves with the exit code: 0 where every line follows the one before it, 1 otherwise. */
export async function verifyAudit({
  files,
}: {
  /** The oldest first. */
  readonly files: readonly string[];
}): Promise<number> {
  let verdict;
  try {
    verdict = await checkAuditLog(files);
  } catch (error) {
    process.stderr.write(`authbridge-proxy: ${messageOf(error)}\n`);
    return 1;
  }
  const { records, first, last, problems } = verdict;
  for (const { file, line, message } of problems) {
    process.stdout.write(`${file}:${line}: ${message}\n`);
  }
  process.stdout.write(`records: ${records}\n`);
  if (first !== undefined && last !== undefined) {
    process.stdout.write(`first:   ${first.sequence}, following ${first.previous}\n`);
    process.stdout.write(`last:    ${last.sequence}, ${last.hash}\n`);
  }
  process.stdout.write(problems.length === 0 ? "the chain is whole\n" : "the chain is BROKEN\n");
  return problems.length === 0 ? 0 : 1;
}
