/** The decision log of `audit` with what vouches for it: its key, its tree, its checkpoints. */
import { hostname } from "node:os";
import type { Prover } from "../../admin/proofs.ts";
import { durationMs } from "../../duration.ts";
import type { Config } from "../../config/presets.ts";
import { messageOf } from "../../errors.ts";
import { readSmallFile, WatchedFile } from "../../files/watched-file.ts";
import { Checkpoints } from "../../receipts/checkpoints.ts";
import { checkpointsPath, resume } from "../../receipts/resume.ts";
import { SigningKey } from "../../receipts/signing-key.ts";
import { AuditLog } from "../../session/audit-log.ts";
import type { LineFile, LineFileOptions } from "../../session/line-file.ts";
import type { Logger } from "../../telemetry/log.ts";
import { proverOf } from "./prover.ts";

type AuditConfig = NonNullable<Config["audit"]>;

/** The log of a process. */
export interface DecisionLog {
  readonly log: AuditLog;
  readonly checkpoints: Checkpoints;
  readonly prover: Prover;
}

/** A line file as the process makes them, with what is particular to this one. */
export type MakeFile = (
  name: "audit" | "checkpoints",
  path: string,
  particular: Pick<LineFileOptions, "onFull" | "onLines" | "syncs">,
) => LineFile;

/** Reads where the log stands, and goes on from there. */
export async function makeDecisionLog(
  audit: AuditConfig,
  log: Logger,
  makeFile: MakeFile,
): Promise<DecisionLog> {
  const { path } = audit;
  const { last, tree, missing } = await resume(path);
  if (missing !== undefined) {
    const { sequence, time } = missing;
    log.error(
      { path, ends: last.sequence, checkpoint: sequence, time },
      "the decision log ends before a record that a checkpoint tells of: its end was cut off",
    );
  }
  const file = makeFile("audit", path, {
    syncs: true,
    onFull: () => checkpoints.seal(),
    onLines: (result, count) => {
      if (result === "written") checkpoints.written(count);
    },
  });
  const checkpoints: Checkpoints = new Checkpoints({
    tree,
    last,
    origin: originOf(audit),
    every: audit.checkpoint_every,
    intervalMs: durationMs(audit.checkpoint_interval),
    file: makeFile("checkpoints", checkpointsPath(path), {}),
    key: signingKey(audit, log),
    sync: () => file.sync(),
    onProblem: (error) =>
      log.error({ path, error: messageOf(error) }, "the decision log has no checkpoint now"),
  });
  return {
    log: new AuditLog(file, last, checkpoints),
    checkpoints,
    prover: proverOf(path, checkpoints),
  };
}

/** What checkpoints call the log. */
export function originOf({ origin }: AuditConfig): string {
  return origin ?? `authbridge-proxy/${hostname().replaceAll(/[\s+]/g, "-") || "unnamed"}`;
}

/** The key of the file as of now, or one that ends with the process. */
export function signingKey({ signing_key_file: path }: AuditConfig, log: Logger): () => SigningKey {
  if (path === undefined) {
    const key = SigningKey.make();
    return () => key;
  }
  const file = new WatchedFile({
    path,
    clock: Date,
    parse: (text) => SigningKey.read(text),
    onProblem: (problem) => log.warn({ key: "audit.signing_key_file" }, problem),
  });
  let key = file.current() ?? SigningKey.make();
  return () => (key = file.current() ?? key);
}

/** What is wrong with the key that the file names; undefined where nothing is. */
export function signingKeyProblem(path: string): string | undefined {
  try {
    SigningKey.read(readSmallFile(path));
    return undefined;
  } catch (error) {
    return `${path} cannot sign: ${messageOf(error)}`;
  }
}
