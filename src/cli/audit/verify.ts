/** `verify-audit`: says whether a decision log is whole, and whether it is what its checkpoints say. */
import { messageOf } from "../../errors.ts";
import { readSmallFile } from "../../files/watched-file.ts";
import { type AuditVerdict, checkAuditLog } from "../../receipts/audit-check.ts";
import { checkpointFilesOf, logOf } from "../../receipts/log-files.ts";
import { readCheckingKeys } from "../../receipts/signing-key.ts";

/** Resolves with the exit code: 0 where every line follows the one before it and fits the checkpoints, 1 otherwise. */
export async function verifyAudit({
  files,
  key,
  checkpoints = [],
}: {
  /** The oldest first. */
  readonly files: readonly string[];
  readonly key?: string;
  readonly checkpoints?: readonly string[];
}): Promise<number> {
  let verdict: AuditVerdict;
  try {
    verdict = await checkAuditLog(files, {
      checkpoints: [...(await checkpointFilesOf(files)), ...checkpoints],
      keys: key === undefined ? undefined : readCheckingKeys(readSmallFile(key)),
      isPart: checkpoints.length === 0 && logOf(files.at(-1) ?? "").isOlder,
    });
  } catch (error) {
    process.stderr.write(`authbridge-proxy: ${messageOf(error)}\n`);
    return 1;
  }
  const { records, first, last, problems, checkpoints: counts } = verdict;
  const lines = problems.map(({ file, line, message }) => `${file}:${line}: ${message}`);
  lines.push(`records: ${records}`);
  if (first !== undefined && last !== undefined) {
    lines.push(`first:   ${first.sequence}, following ${first.previous}`);
    lines.push(`last:    ${last.sequence}, ${last.hash}`);
  }
  const signed =
    key === undefined ? "signatures not checked: no --key" : `${counts.signed} signed by the key`;
  lines.push(`checkpoints: ${counts.read}, ${counts.fit} fit these records, ${signed}`);
  const isUnsigned = key !== undefined && counts.signed === 0 && records > 0;
  if (isUnsigned) lines.push("no checkpoint is signed by the key: it vouches for nothing here");
  const isWhole = problems.length === 0 && !isUnsigned;
  lines.push(isWhole ? "the chain is whole" : "the chain is BROKEN");
  process.stdout.write(`${lines.join("\n")}\n`);
  return isWhole ? 0 : 1;
}
