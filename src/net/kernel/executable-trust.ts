/** Remembers what each executable was when it was first seen, and says when it is not that any more. */
import { createHash } from "node:crypto";
import type { BigIntStats } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";

/** What is known of an executable's content. */
export type Trust =
  | { readonly kind: "trusted"; readonly sha256: string }
  | { readonly kind: "changed" }
  | { readonly kind: "unreadable"; readonly reason: string };

interface Remembered {
  readonly sha256: string;
  readonly fingerprint: string;
}

/** A new path beyond this is not trusted; nothing is forgotten, as forgetting would be a way to trust anew. */
const maxRemembered = 4096;
const maxBytes = 1 << 30;
const pieceBytes = 65_536;

/** Trust on first use, by the path that policy sees. */
export class ExecutableTrust {
  readonly #remembered = new Map<string, Remembered>();
  readonly #hashing = new Map<string, Promise<string>>();

  /** How often content was read; a file that did not change is read once. */
  hashCount = 0;

  /** Checks the file behind `link` (the running image, whatever lies at its path by now) under its display path. */
  async check(path: string, link: string): Promise<Trust> {
    let file: FileHandle;
    try {
      const known = this.#remembered.get(path);
      // Nearly always it has not changed, which is seen without opening it.
      if (known !== undefined && known.fingerprint === (await fingerprintAt(link)))
        return { kind: "trusted", sha256: known.sha256 };
      file = await open(link, "r");
    } catch (error) {
      return { kind: "unreadable", reason: (error as NodeJS.ErrnoException).code ?? "unreadable" };
    }
    try {
      return await this.#compare(path, file);
    } catch (error) {
      return { kind: "unreadable", reason: (error as NodeJS.ErrnoException).code ?? String(error) };
    } finally {
      await file.close();
    }
  }

  async #compare(path: string, file: FileHandle): Promise<Trust> {
    const stats = await file.stat({ bigint: true });
    if (stats.size > maxBytes) return { kind: "unreadable", reason: "too large to hash" };
    const fingerprint = fingerprintOf(stats);
    const known = this.#remembered.get(path);
    if (known?.fingerprint === fingerprint) return { kind: "trusted", sha256: known.sha256 };
    if (known === undefined && this.#remembered.size >= maxRemembered) {
      return { kind: "unreadable", reason: "too many executables were seen" };
    }
    const sha256 = await this.#hash(fingerprint, file);
    const after = await file.stat({ bigint: true });
    if (fingerprintOf(after) !== fingerprint) return { kind: "changed" };
    // Asked again after the wait: another connection may have been first.
    const first = this.#remembered.get(path);
    if (first !== undefined && first.sha256 !== sha256) return { kind: "changed" };
    this.#remembered.set(path, { sha256, fingerprint });
    return { kind: "trusted", sha256 };
  }

  /** Hashes the same content once for all who ask at the same time. */
  async #hash(fingerprint: string, file: FileHandle): Promise<string> {
    const running = this.#hashing.get(fingerprint);
    if (running !== undefined) return running;
    const hashing = this.#read(file);
    this.#hashing.set(fingerprint, hashing);
    try {
      return await hashing;
    } finally {
      this.#hashing.delete(fingerprint);
    }
  }

  async #read(file: FileHandle): Promise<string> {
    this.hashCount += 1;
    const hash = createHash("sha256");
    const buffer = Buffer.allocUnsafe(pieceBytes);
    for (let at = 0; at <= maxBytes;) {
      const { bytesRead } = await file.read(buffer, 0, pieceBytes, at);
      if (bytesRead === 0) break;
      hash.update(buffer.subarray(0, bytesRead));
      at += bytesRead;
    }
    return hash.digest("hex");
  }
}

async function fingerprintAt(link: string): Promise<string> {
  return fingerprintOf(await stat(link, { bigint: true }));
}

function fingerprintOf({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return [dev, ino, size, mtimeNs, ctimeNs].join(" ");
}
