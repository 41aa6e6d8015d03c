/** Files that are there whole or not at all, whoever reads them meanwhile. */
import { lstat, open, rename, rm } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { threadId } from "node:worker_threads";
import { isMissing } from "./watched-file.ts";

/** Writes beside `path` and renames into place. A device, a pipe or a socket is not replaced: nothing would bring it back. */
export async function writeAtomically(
  path: string,
  content: string | Uint8Array,
  mode: number,
): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${process.pid}.${threadId}.tmp`);
  if (!(await isReplaceable(path))) throw new Error("it is not a regular file");
  await rm(temporary, { force: true });
  try {
    // "wx": a symbolic link that somebody else put there is not written through.
    const file = await open(temporary, "wx", mode);
    try {
      // open() subtracts the umask; chmod does not.
      await file.chmod(mode);
      await file.writeFile(content);
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } finally {
    await rm(temporary, { force: true });
  }
}

async function isReplaceable(path: string): Promise<boolean> {
  try {
    const stat = await lstat(path);
    return stat.isFile() || stat.isSymbolicLink();
  } catch (error) {
    if (isMissing(error)) return true;
    throw error;
  }
}
