/** `verify-audit`: says whether a decision log is whole, and whether it is what its checkpoints say. */
import { messageOf, ProxyError } from "../../errors.ts";
import { textOfGiven } from "../../files/given-file.ts";
import { type AuditVerdict, checkAuditLog, maxProblems } from "../../receipts/audit-check.ts";
import { checkpointFilesOf, followingOf, logOf } from "../../receipts/log-files.ts";
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
    const newest = files.at(-1) ?? "";
    verdict = await checkAuditLog(files, {
      checkpoints: await checkpointFilesOf(files),
      kept: checkpoints,
      keys: key === undefined ? undefined : await keysOf(key),
      isPart: checkpoints.length === 0 && logOf(newest).isOlder,
      following: await followingOf(newest),
    });
  } catch (error) {
    process.stderr.write(`authbridge-proxy: ${messageOf(error)}\n`);
    return 1;
  }
  const { records, first, last, lastFit, problems, checkpoints: counts } = verdict;
  const lines = problems.map(({ file, line, message }) => `${file}:${line}: ${message}`);
  if (problems.length === maxProblems) lines.push("there may be more: these are the first");
  lines.push(`records: ${records}`);
  if (first !== undefined && last !== undefined) {
    lines.push(`first:   ${first.sequence}, following ${first.previous}`);
    lines.push(`last:    ${last.sequence}, ${last.hash}`);
  }
  const signed =
    key === undefined ? "signatures not checked: no --key" : `${counts.signed} signed by the key`;
  lines.push(`checkpoints: ${counts.read}, ${counts.fit} fit these records, ${signed}`);
  const isUnsigned = key !== undefined && counts.fit === 0;
  const after = (last?.sequence ?? 0) - lastFit;
  if (isUnsigned) {
    lines.push(
      "no checkpoint signed by the key tells of any of these records: it vouches for nothing here",
    );
  } else if (key !== undefined) {
    const rest = after > 0 ? `, the ${after} after it are vouched for by the chain alone` : "";
    lines.push(`signed up to record ${lastFit}${rest}`);
  }
  const isWhole = problems.length === 0 && !isUnsigned;
  lines.push(isWhole ? "the chain is whole" : "the chain is BROKEN");
  process.stdout.write(`${lines.join("\n")}\n`);
  return isWhole ? 0 : 1;
}

const maxKeyBytes = 1_048_576;

async function keysOf(file: string): Promise<ReturnType<typeof readCheckingKeys>> {
  const text = await textOfGiven(file, maxKeyBytes);
  try {
    return readCheckingKeys(text);
  } catch (error) {
    const message = `${file} cannot be used: ${messageOf(error)}`;
    throw new ProxyError("config.invalid", message, { cause: error });
  }
}
