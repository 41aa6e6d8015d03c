/** Where compiled code is kept between starts. */
import { existsSync, mkdirSync, statSync } from "node:fs";
// As a whole: an old Node without some of its names has to get as far as the sentence about its age.
import nodeModule from "node:module";
import { homedir } from "node:os";
import { isAbsolute, join } from "node:path";

/**
 * Folders to try, the best first: the one that an image ships beside the program, then one of the user's own.
 *
 * Never the folder for temporary files, which is Node's choice: who can write there before this user does could leave
 * compiled code for it. Node takes NODE_COMPILE_CACHE and NODE_DISABLE_COMPILE_CACHE before it asks here.
 */
export function compileCacheFolders(programFolder: string, env: NodeJS.ProcessEnv): string[] {
  const shipped = join(programFolder, "compile-cache");
  const own = ownFolder(env);
  return [...(existsSync(shipped) ? [shipped] : []), ...(own === undefined ? [] : [own])];
}

/** Keeps what is loaded from here on. */
export function useCompileCache(programFolder: string): void {
  for (const folder of compileCacheFolders(programFolder, process.env)) {
    const { status } = nodeModule.enableCompileCache(folder);
    if (status !== nodeModule.constants.compileCacheStatus.FAILED) break;
  }
}

/** Undefined without a home, where nothing can be written, and where somebody else could write. */
function ownFolder({ XDG_CACHE_HOME: asked }: NodeJS.ProcessEnv): string | undefined {
  try {
    const caches = asked !== undefined && isAbsolute(asked) ? asked : join(homedir(), ".cache");
    // HOME may be empty.
    if (!isAbsolute(caches)) return undefined;
    const folder = join(caches, "authbridge-proxy");
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const { uid, mode } = statSync(folder);
    const isOwn = process.getuid === undefined || (uid === process.getuid() && !(mode & 0o022));
    return isOwn ? folder : undefined;
  } catch {
    return undefined;
  }
}
