/** Proofs from the files of a log: that a decision is in it, and that it only grew. */
import { linkOf } from "../session/audit-record.ts";
import type { Checkpoint } from "./checkpoint.ts";
import { linesOf } from "./lines.ts";
import { checkpointsIn } from "./log-files.ts";
import {
  CompactTree,
  consistencySpans,
  inclusionSpans,
  leafHash,
  rootOf,
  type Span,
  SpanHashes,
} from "./merkle.ts";

/** Where a proof is made from: files, the oldest first, and a checkpoint that is not in a file yet. */
export interface ProofSources {
  readonly files: readonly string[];
  readonly checkpointFiles: readonly string[];
  readonly newest?: Checkpoint | undefined;
}

/** A decision, and what shows that it is in the tree of a checkpoint (RFC 6962, 2.1.1). */
export interface InclusionProof {
  readonly sequence: number;
  /** The whole line, of which the leaf is the hash. */
  readonly leaf: string;
  readonly leafHash: string;
  readonly index: number;
  readonly treeSize: number;
  readonly auditPath: readonly string[];
  readonly rootHash: string;
  readonly checkpoint: string;
}

/** What shows that the tree of one checkpoint goes on in that of another (RFC 6962, 2.1.2). */
export interface ConsistencyProof {
  readonly from: string;
  readonly to: string;
  readonly path: readonly string[];
}

/** Why there is no proof. */
export interface NoProof {
  readonly missing: "decision" | "checkpoint" | "lines";
  readonly message: string;
}

interface Found {
  readonly sequence: number;
  readonly line: Buffer;
}

/** Of the newest decision about the request, or of the record of that number; in the tree of the first checkpoint with it, or of that size. */
export async function proveInclusion(
  sources: ProofSources,
  id: string,
  size?: number,
): Promise<InclusionProof | NoProof> {
  const found = await findDecision(sources.files, id);
  if (found === undefined) {
    return { missing: "decision", message: "the log has no such decision" };
  }
  const { sequence, line } = found;
  const target = await nearest(sources, (checkpoint, best) => {
    if (checkpoint.sequence < sequence || firstOf(checkpoint) > sequence) return false;
    if (size !== undefined) return checkpoint.size === size;
    return best === undefined || checkpoint.sequence < best.sequence;
  });
  if (target === undefined) {
    const which = size === undefined ? "has it yet" : `of size ${size} has it`;
    return { missing: "checkpoint", message: `no checkpoint ${which}` };
  }
  const index = sequence - firstOf(target);
  const base = await nearest(sources, (checkpoint, best) => {
    if (checkpoint.tree === undefined || checkpoint.sequence >= sequence) return false;
    if (firstOf(checkpoint) !== firstOf(target)) return false;
    return best === undefined || checkpoint.sequence > best.sequence;
  });
  const spans = inclusionSpans(index, target.size);
  const path = await hashes(sources, spans, base, target);
  if (path === undefined) return noLines;
  const leaf = leafHash(line);
  if (!rootOf(leaf, index, spans, path).equals(target.root)) return otherLines;
  return {
    sequence,
    leaf: line.toString(),
    leafHash: leaf.toString("base64"),
    index,
    treeSize: target.size,
    auditPath: path.map(inBase64),
    rootHash: target.root.toString("base64"),
    checkpoint: target.note,
  };
}

/** Between the checkpoints of two sizes. */
export async function proveConsistency(
  sources: ProofSources,
  from: number,
  to: number,
): Promise<ConsistencyProof | NoProof> {
  const ofSize =
    (size: number) =>
    (checkpoint: Checkpoint): boolean =>
      checkpoint.size === size;
  const newer = await nearest(sources, ofSize(to));
  const older = await nearest(
    sources,
    (checkpoint) =>
      newer !== undefined && checkpoint.size === from && firstOf(checkpoint) === firstOf(newer),
  );
  if (older?.tree === undefined || newer === undefined || from > to) {
    const which = older === undefined ? from : to;
    return { missing: "checkpoint", message: `there is no checkpoint of size ${which}` };
  }
  const path = await hashes(sources, consistencySpans(from, to), older, newer);
  return path === undefined
    ? noLines
    : { from: older.note, to: newer.note, path: path.map(inBase64) };
}

function inBase64(bytes: Buffer): string {
  return bytes.toString("base64");
}

const noLines: NoProof = {
  missing: "lines",
  message: "lines between two checkpoints are not there",
};

const otherLines: NoProof = {
  missing: "lines",
  message: "the lines of the log are not those of the checkpoint: see verify-audit",
};

/** The sequence of the first entry of its tree. */
function firstOf({ sequence, size }: Checkpoint): number {
  return sequence - size + 1;
}

async function findDecision(files: readonly string[], id: string): Promise<Found | undefined> {
  const request = `"request":${JSON.stringify(id)}`;
  const number = /^\d{1,15}$/.test(id) ? `"sequence":${id},` : undefined;
  for (const file of files.toReversed()) {
    let found: Found | undefined;
    for await (const line of linesOf(file)) {
      const isNumber = number !== undefined && line.subarray(0, 40).includes(number);
      if (!isNumber && !line.includes(request)) continue;
      const link = linkOf(line.toString());
      if (link === undefined || !isAbout(line, link.sequence, id)) continue;
      found = { sequence: link.sequence, line: Buffer.from(line) };
    }
    if (found !== undefined) return found;
  }
  return undefined;
}

/** What looks like an id may stand anywhere in a line. */
function isAbout(line: Buffer, sequence: number, id: string): boolean {
  const { request } = JSON.parse(line.toString()) as { readonly request?: unknown };
  return request === id || String(sequence) === id;
}

/** The checkpoint that is better than every one before it. */
async function nearest(
  { checkpointFiles, newest }: ProofSources,
  isBetter: (checkpoint: Checkpoint, best: Checkpoint | undefined) => boolean,
): Promise<Checkpoint | undefined> {
  let best: Checkpoint | undefined;
  for await (const checkpoint of checkpointsIn(checkpointFiles)) {
    if (isBetter(checkpoint, best)) best = checkpoint;
  }
  return newest !== undefined && isBetter(newest, best) ? newest : best;
}

/** Reads the lines from one checkpoint to another; of all that is before them the first one knows enough. */
async function hashes(
  { files }: ProofSources,
  spans: readonly Span[],
  base: Checkpoint | undefined,
  target: Checkpoint,
): Promise<Buffer[] | undefined> {
  const result = new SpanHashes(spans, base?.tree ?? new CompactTree());
  let next = base === undefined ? firstOf(target) : base.sequence + 1;
  for (const file of await filesFrom(files, next)) {
    for await (const line of linesOf(file)) {
      if (next > target.sequence) break;
      const link = linkOf(line.toString());
      if (link?.sequence !== next) continue;
      result.add(leafHash(line));
      next += 1;
    }
  }
  return next > target.sequence ? result.result() : undefined;
}

/** Without those that end before the record. */
async function filesFrom(files: readonly string[], sequence: number): Promise<readonly string[]> {
  for (let at = files.length - 1; at > 0; at -= 1) {
    for await (const line of linesOf(files[at] ?? "")) {
      const link = linkOf(line.toString());
      if (link === undefined) continue;
      if (link.sequence <= sequence) return files.slice(at);
      break;
    }
  }
  return files;
}
