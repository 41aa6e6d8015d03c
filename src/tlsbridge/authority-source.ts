/**
 * The authority in force: fixed, or followed on disk so that a renewed Secret is used without a restart.
 */
import { messageOf } from "../errors.ts";
import { FileWatch } from "../files/watched-file.ts";
import {
  authorityFromFiles,
  checkGeneratedKeyMode,
  ensureAuthorityFiles,
  readAuthorityFiles,
} from "./authority-files.ts";
import type { CertificateAuthority } from "./certificate-authority.ts";

/** What a minter needs: the authority to sign with now. */
export interface AuthoritySource {
  readonly current: CertificateAuthority;
}

/** Options of {@link CertificateAuthoritySource.open}. */
export interface AuthoritySourceOptions {
  readonly directory: string;
  /** Make a set when the directory lacks one. */
  readonly generate?: boolean;
  readonly now?: () => number;
  /** How often to look even when no event came: network and overlay file systems send none. */
  readonly pollMs?: number;
  /** Quiet time after an event before the files are read. */
  readonly debounceMs?: number;
  readonly onRotated?: (authority: CertificateAuthority) => void;
  /** A changed set that cannot be used; the last good one stays in force. Called once per problem. */
  readonly onProblem?: (message: string, error: unknown) => void;
}

/** A set that is being replaced file by file is read this often before it is called bad. */
const maxReads = 3;

/** Follows `ca_dir`. `current` is always an authority that passed every check when it was read. */
export class CertificateAuthoritySource implements AuthoritySource {
  readonly #options: AuthoritySourceOptions;
  readonly #now: () => number;
  #current: CertificateAuthority;
  #digest: string;
  #problem: string | undefined;
  #watcher: FileWatch | undefined;
  #poll: NodeJS.Timeout | undefined;
  #checking: Promise<void> | undefined;
  #checkAgain = false;

  private constructor(
    options: AuthoritySourceOptions,
    current: CertificateAuthority,
    digest: string,
  ) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#current = current;
    this.#digest = digest;
  }

  /** Loads or generates the set; throws `config.invalid` when it cannot be used. Does not watch yet. */
  static async open(options: AuthoritySourceOptions): Promise<CertificateAuthoritySource> {
    const nowMs = (options.now ?? Date.now)();
    if (options.generate === true) await ensureAuthorityFiles(options.directory, nowMs);
    const files = await readAuthorityFiles(options.directory);
    const authority = await authorityFromFiles(files, nowMs);
    if (options.generate === true) await checkGeneratedKeyMode(options.directory, authority);
    return new CertificateAuthoritySource(options, authority, files.digest);
  }

  get current(): CertificateAuthority {
    return this.#current;
  }

  /** Starts to follow the directory. */
  start(): void {
    this.#poll ??= setInterval(() => void this.check(), this.#options.pollMs ?? 60_000).unref();
    if (this.#watcher !== undefined) return;
    try {
      this.#watcher = new FileWatch(
        this.#options.directory,
        this.#options.debounceMs ?? 250,
        () => void this.check(),
        () => this.#stopWatching(),
      );
    } catch {
      // No watches left, or none on this file system: the poll remains.
      this.#stopWatching();
    }
  }

  /** Looks at the files now; resolves when `current` reflects them or the problem was reported. */
  check(): Promise<void> {
    if (this.#checking !== undefined) {
      // The running check may have read the files already: look once more after it.
      this.#checkAgain = true;
      return this.#checking;
    }
    this.#checking = this.#checkUntilQuiet().finally(() => {
      this.#checking = undefined;
    });
    return this.#checking;
  }

  /** Stops following; `current` stays. */
  async close(): Promise<void> {
    this.#stopWatching();
    clearInterval(this.#poll);
    this.#poll = undefined;
    await this.#checking;
  }

  #stopWatching(): void {
    this.#watcher?.close();
    this.#watcher = undefined;
  }

  async #checkUntilQuiet(): Promise<void> {
    do {
      this.#checkAgain = false;
      await this.#checkOnce();
    } while (this.#checkAgain);
  }

  async #checkOnce(): Promise<void> {
    let problem: unknown;
    for (let read = 0; read < maxReads; read += 1) {
      try {
        const files = await readAuthorityFiles(this.#options.directory);
        // Nothing new, or the same bad set read twice.
        if (files.digest === this.#digest) break;
        this.#digest = files.digest;
        const authority = await authorityFromFiles(files, this.#now());
        if (
          authority.fingerprint !== this.#current.fingerprint ||
          files.caPem !== this.#current.caPem
        ) {
          this.#current = authority;
          this.#options.onRotated?.(authority);
        }
        this.#problem = undefined;
        return;
      } catch (error) {
        problem = error;
      }
    }
    if (problem === undefined || messageOf(problem) === this.#problem) return;
    this.#problem = messageOf(problem);
    this.#options.onProblem?.(this.#problem, problem);
  }
}
