/** `audit proof` and `audit consistency`: proofs from the files of a decision log, as JSON. */
import { access, constants } from "node:fs/promises";
import { unreadable } from "../../files/given-file.ts";
import { messageOf } from "../../errors.ts";
import { checkpointFilesOf } from "../../receipts/log-files.ts";
import {
  type NoProof,
  type ProofSources,
  proveConsistency,
  proveInclusion,
} from "../../receipts/proofs.ts";

/** Prints the proof of one decision; resolves with the exit code. */
export function proveDecision({
  arguments: [id = "", ...files],
  size,
}: {
  readonly arguments: readonly string[];
  readonly size?: number;
}): Promise<number> {
  return printed(files, (sources) => proveInclusion(sources, id, size));
}

/** Prints the proof that the tree of one checkpoint goes on in that of another; resolves with the exit code. */
export function proveGrowth({
  files,
  from,
  to,
}: {
  readonly files: readonly string[];
  readonly from: number;
  readonly to: number;
}): Promise<number> {
  return printed(files, (sources) => proveConsistency(sources, from, to));
}

async function printed(
  files: readonly string[],
  prove: (sources: ProofSources) => Promise<object | NoProof>,
): Promise<number> {
  try {
    // The checkpoints beside them are looked at first.
    for (const file of files) await assertReadable(file);
    const proof = await prove({ files, checkpointFiles: await checkpointFilesOf(files) });
    if (!("missing" in proof)) {
      process.stdout.write(`${JSON.stringify(proof, undefined, 2)}\n`);
      return 0;
    }
    process.stderr.write(`authbridge-proxy: ${proof.message}\n`);
  } catch (error) {
    process.stderr.write(`authbridge-proxy: ${messageOf(error)}\n`);
  }
  return 1;
}

async function assertReadable(file: string): Promise<void> {
  try {
    await access(file, constants.R_OK);
  } catch (error) {
    throw unreadable(file, error);
  }
}
