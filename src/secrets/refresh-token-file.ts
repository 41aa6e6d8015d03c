/** A refresh token in a file, or in two: the one that the operator put there, and the one that replaced it since. */
import { stat } from "node:fs/promises";
import { fileProblem, readSmallFile } from "../files/watched-file.ts";
import { messageOf } from "../errors.ts";
import { writeAtomically } from "../files/atomic-file.ts";
import { Secret } from "../secret.ts";
import { unavailable } from "./secret-source.ts";

/** Where it is. */
export interface RefreshTokenFileOptions {
  readonly path: string;
  /** Where a token that the endpoint gave is written; in the place of the first when absent. */
  readonly rotatedPath: string | undefined;
  /** Called when a new token cannot be written: it is kept in memory, and written later. */
  onUnwritten(this: void, problem: string): void;
}

const maxBytes = 64 * 1024;
const mode = 0o600;

/** One refresh token. It is read for each use: another process, thread or person may have replaced it. */
export class RefreshTokenFile {
  readonly #options: RefreshTokenFileOptions;
  #unwritten: Secret | undefined;

  constructor(options: RefreshTokenFileOptions) {
    this.#options = options;
  }

  async current(): Promise<Secret> {
    const { path, rotatedPath } = this.#options;
    if (this.#unwritten !== undefined) {
      const kept = this.#unwritten;
      await this.replace(kept);
      return kept;
    }
    const newest = (await this.#isRotatedNewer()) ? (rotatedPath ?? path) : path;
    let text: string;
    try {
      text = readSmallFile(newest, maxBytes).trim();
    } catch (error) {
      throw unavailable(fileProblem(newest, error), error);
    }
    if (!/^[\x20-\x7e]+$/.test(text)) throw unavailable(`${newest} holds no refresh token`);
    return new Secret(text);
  }

  /** Keeps the token that the endpoint gave. The old one may be of no use any more, so a failure loses nothing here. */
  async replace(token: Secret): Promise<void> {
    const { path, rotatedPath = path, onUnwritten } = this.#options;
    try {
      await writeAtomically(rotatedPath, `${token.reveal()}\n`, mode);
      this.#unwritten = undefined;
    } catch (error) {
      this.#unwritten = token;
      onUnwritten(`${rotatedPath}: ${messageOf(error)}`);
    }
  }

  /** A token that the operator put there after the last replacement is the one that is meant. */
  async #isRotatedNewer(): Promise<boolean> {
    const { path, rotatedPath } = this.#options;
    if (rotatedPath === undefined) return false;
    const [given, rotated] = await Promise.all([path, rotatedPath].map(changedAt));
    return rotated !== undefined && (given === undefined || rotated >= given);
  }
}

async function changedAt(path: string): Promise<number | undefined> {
  try {
    return (await stat(path)).mtimeMs;
  } catch {
    return undefined;
  }
}
