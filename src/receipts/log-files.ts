/** The files of a decision log and of its checkpoints, by their names. */
import { readdir } from "node:fs/promises";
import { basename, dirname, join, normalize } from "node:path";
import { type Checkpoint, readCheckpoint } from "./checkpoint.ts";
import { linesOf } from "./lines.ts";
import { checkpointsPath } from "./resume.ts";

/** The file and those that were set aside, the oldest first; nothing where there is none. */
export async function filesOf(path: string): Promise<string[]> {
  const name = basename(path);
  const numbers = (await readdir(dirname(path)).catch((): string[] => [])).flatMap((entry) => {
    if (entry === name) return [0];
    const suffix = entry.startsWith(`${name}.`) ? entry.slice(name.length + 1) : "";
    return /^[1-9]\d{0,5}$/.test(suffix) ? [Number(suffix)] : [];
  });
  return numbers
    .sort((a, b) => b - a)
    .map((number) => join(dirname(path), number === 0 ? name : `${name}.${number}`));
}

/** The path of the log to which a file belongs, and whether the file is not its newest one. */
export function logOf(file: string): { readonly path: string; readonly isOlder: boolean } {
  const path = file.replace(/\.[1-9]\d{0,5}$/, "");
  return { path, isOlder: path !== file };
}

/** The file that was begun after this one; undefined where it is the newest, or the next one is not there. */
export async function followingOf(file: string): Promise<string | undefined> {
  const { path, isOlder } = logOf(file);
  if (!isOlder) return undefined;
  const files = await filesOf(path);
  const at = files.indexOf(normalize(file));
  return at === -1 ? undefined : files[at + 1];
}

/** The files of checkpoints beside those of a log, the oldest first. */
export async function checkpointFilesOf(files: readonly string[]): Promise<string[]> {
  const paths = new Set(files.map((file) => checkpointsPath(logOf(file).path)));
  return (await Promise.all([...paths].map(filesOf))).flat();
}

/** Those that can be read, the oldest first. */
export async function* checkpointsIn(files: readonly string[]): AsyncGenerator<Checkpoint> {
  for (const file of files) {
    for await (const line of linesOf(file)) {
      try {
        yield readCheckpoint(line.toString());
      } catch {
        // A torn line; a check says so.
      }
    }
  }
}
