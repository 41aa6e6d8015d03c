/** Proofs of the log that this process writes. */
import type { Prover } from "../../admin/proofs.ts";
import type { Checkpoints } from "../../receipts/checkpoints.ts";
import { checkpointFilesOf, filesOf } from "../../receipts/log-files.ts";
import {
  type NoProof,
  type ProofSources,
  proveConsistency,
  proveInclusion,
} from "../../receipts/proofs.ts";

/** Reads the files as they are; a decision that no checkpoint has yet gets one. */
export function proverOf(path: string, checkpoints: Checkpoints): Prover {
  const sources = async (newest: ProofSources["newest"]): Promise<ProofSources> => {
    const files = await filesOf(path);
    return { files, checkpointFiles: await checkpointFilesOf(files), newest };
  };
  const proved = async <T extends object>(
    prove: (from: ProofSources) => Promise<T | NoProof>,
  ): Promise<T | NoProof> => {
    const proof = await prove(await sources(undefined));
    // No checkpoint has it yet, the newest one is on its way to the disk, or files were set aside meanwhile.
    if (!("missing" in proof) || proof.missing === "decision") return proof;
    return prove(await sources(await checkpoints.seal()));
  };
  return {
    inclusion: (id, size) => proved((from) => proveInclusion(from, id, size)),
    consistency: (older, newer) => proved((from) => proveConsistency(from, older, newer)),
    checkpoint: async () => (await checkpoints.seal())?.note,
  };
}
