/** Files beside the configuration whose change is a change of the configuration: CAs, passwords, the cluster's Proxy. */
import { createHash } from "node:crypto";
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { maxBundleBytes } from "../trust/trusted-ca.ts";
import { FileWatch, isDirectory, readSmallFile } from "../../files/watched-file.ts";

/** Changes with what the files hold; a file that cannot be read counts as an empty one. */
export function digestOf(files: readonly string[]): string {
  const digest = createHash("sha256");
  for (const file of files.flatMap(membersOf)) {
    digest.update(file).update("\0").update(contentOf(file)).update("\0");
  }
  return digest.digest("hex");
}

/** Follows the files that the accepted configuration names. */
export class InputFiles {
  readonly #debounceMs: number;
  readonly #onChange: () => void;
  readonly #onError: (error: Error) => void;
  #watches: FileWatch[] = [];

  constructor(debounceMs: number, onChange: () => void, onError: (error: Error) => void) {
    this.#debounceMs = debounceMs;
    this.#onChange = onChange;
    this.#onError = onError;
  }

  /** Follows these files and no others. */
  follow(files: readonly string[]): void {
    this.close();
    this.#watches = files.flatMap((file) => {
      try {
        return [new FileWatch(file, this.#debounceMs, this.#onChange, this.#onError)];
      } catch (error) {
        this.#onError(error instanceof Error ? error : new Error(String(error)));
        return [];
      }
    });
  }

  close(): void {
    for (const watched of this.#watches) watched.close();
    this.#watches = [];
  }
}

function membersOf(file: string): string[] {
  try {
    if (!isDirectory(file)) return [file];
    return readdirSync(file)
      .sort()
      .map((name) => join(file, name));
  } catch {
    return [];
  }
}

function contentOf(file: string): string {
  try {
    return readSmallFile(file, maxBundleBytes);
  } catch {
    return "";
  }
}
