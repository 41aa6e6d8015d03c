/** A directory with one secret per file, as Kubernetes mounts it. */
import { constants } from "node:fs";
import { open, readdir, realpath } from "node:fs/promises";
import { join, sep } from "node:path";

/** Longest secret that fits a header field of any origin. */
const maxBytes = 16 * 1024;

/**
 * The trimmed text of one file; undefined when it is absent, too long or outside the directory.
 *
 * Read at every call, so a rotated secret is used at once. A link may lead to another place inside the directory (that is
 * how Kubernetes swaps versions) and nowhere else.
 */
export async function readSecretFile(directory: string, key: string): Promise<string | undefined> {
  if (!isFileName(key)) return undefined;
  try {
    const root = await realpath(directory);
    const path = await realpath(join(root, key));
    if (!path.startsWith(root.endsWith(sep) ? root : root + sep)) return undefined;
    // A pipe is not waited for.
    const file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      const { size } = await file.stat().then((stat) => (stat.isFile() ? stat : { size: -1 }));
      if (size < 0 || size > maxBytes) return undefined;
      return (await file.readFile("utf8")).trim();
    } finally {
      await file.close();
    }
  } catch (error) {
    const isAbsent = error instanceof Error && "code" in error;
    // Whatever the file system says, there is no secret to attach and the request is refused.
    if (isAbsent) return undefined;
    throw error;
  }
}

/** Whether the text names a file directly inside a directory. */
export function isFileName(text: string): boolean {
  return text !== "" && text !== "." && text !== ".." && !/[/\\\0]/.test(text);
}

/** Names of the files of the directory, at most `most`; none where it cannot be read. */
export async function secretNames(directory: string, most: number): Promise<readonly string[]> {
  try {
    // Kubernetes keeps its versions under names that begin with two dots.
    return (await readdir(directory)).filter((name) => !name.startsWith("..")).slice(0, most);
  } catch {
    return [];
  }
}
