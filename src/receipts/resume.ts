/** Finds the tree of a decision log that goes on: from its newest checkpoint, and the lines after it. */
import { type Link, linkOf } from "../session/audit-record.ts";
import { lastLink, tailOf } from "../session/audit-log.ts";
import { type Checkpoint, readCheckpoint } from "./checkpoint.ts";
import { linesOf } from "./lines.ts";
import { CompactTree, leafHash } from "./merkle.ts";

/** Where a log stands. */
export interface Resumed {
  readonly last: Link;
  readonly tree: CompactTree;
  /** A checkpoint that tells of a record which is not there. */
  readonly missing?: Checkpoint | undefined;
}

/** The file of checkpoints beside a log. */
export function checkpointsPath(path: string): string {
  return `${path}.checkpoints`;
}

/** Reads the end of a log. A log whose beginning nobody vouches for begins a tree of its own with its next record. */
export async function resume(path: string): Promise<Resumed> {
  const last = await lastLink(path);
  const known = new Map<number, Checkpoint>();
  for (const file of [`${checkpointsPath(path)}.1`, checkpointsPath(path)]) {
    for (const line of (await tailOf(file)).split("\n")) {
      const checkpoint = readable(line);
      if (checkpoint?.tree !== undefined) known.set(checkpoint.sequence, checkpoint);
    }
  }
  const newest = Math.max(0, ...known.keys());
  const missing = newest > last.sequence ? known.get(newest) : undefined;
  let tree: CompactTree | undefined;
  const at = (sequence: number, hash: string): CompactTree | undefined => {
    const checkpoint = known.get(sequence);
    return checkpoint?.hash === hash ? checkpoint.tree?.copy() : undefined;
  };
  for (const file of await filesToRead(path)) {
    let first = true;
    for await (const line of linesOf(file)) {
      const link = linkOf(line.toString());
      if (link === undefined) continue;
      if (first && tree === undefined) {
        tree = link.sequence === 1 ? new CompactTree() : at(link.sequence - 1, link.previous);
      }
      first = false;
      tree?.add(leafHash(line));
      tree ??= at(link.sequence, link.hash);
    }
  }
  // Nothing is left of the log but what a checkpoint tells of it.
  tree ??= at(last.sequence, last.hash) ?? new CompactTree();
  return { last, tree, missing };
}

/** The newest file, and the one before it where the newest has no record. */
async function filesToRead(path: string): Promise<string[]> {
  for (const file of [path, `${path}.1`]) {
    try {
      for await (const line of linesOf(file)) {
        if (linkOf(line.toString()) !== undefined) return [file];
      }
    } catch {
      // It is not there; see lastLink.
    }
  }
  return [];
}

function readable(line: string): Checkpoint | undefined {
  try {
    return readCheckpoint(line);
  } catch {
    // A torn line, or the middle of one.
    return undefined;
  }
}
