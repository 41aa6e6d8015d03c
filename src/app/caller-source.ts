/** The callers of a file: its list, and the directory of passwords beside it. */
import { createHash } from "node:crypto";
import { statSync } from "node:fs";
import { join } from "node:path";
import type { Config } from "../config/presets.ts";
import { credentialText, isDirectory, WatchedFile } from "../files/watched-file.ts";
import { CallerAuthentication, type CallerDirectory } from "../proxy/flow/caller-authentication.ts";
import type { Logger } from "../telemetry/log.ts";
import type { BuildProblem } from "./build-problems.ts";

type Callers = NonNullable<Config["callers"]>;

/** Long enough for any password, and no file that would fill memory. */
const maxPasswordBytes = 4_096;
/** More files are looked at, and not remembered. */
const maxRememberedFiles = 10_000;

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();

/** Undefined where the file has no `callers`. */
export function buildCallers(
  config: Config,
  log: Logger,
  problems: BuildProblem[],
): CallerAuthentication | undefined {
  const { callers } = config;
  if (callers === undefined) return undefined;
  const directory = new FileCallers(callers, log);
  problems.push(...directory.problems());
  return new CallerAuthentication(directory, callers.realm);
}

class FileCallers implements CallerDirectory {
  readonly #callers: Callers;
  readonly #log: Logger;
  readonly #passwords = new Map<string, () => Buffer | undefined>();
  readonly #files = new Map<string, WatchedFile<Buffer>>();
  readonly #certificates = new Map<string, string>();

  constructor(callers: Callers, log: Logger) {
    this.#callers = callers;
    this.#log = log;
    for (const { name, password, password_file: path, certificate } of callers.clients) {
      if (certificate !== undefined) this.#certificates.set(certificate, name);
      if (path !== undefined) {
        const file = this.#watch(path);
        this.#passwords.set(name, () => file.current());
      } else if (password !== undefined) {
        const fixed = digest(password);
        this.#passwords.set(name, () => fixed);
      }
    }
  }

  /** Passwords that cannot be read now, and a directory that is none. */
  problems(): BuildProblem[] {
    const found: BuildProblem[] = [];
    for (const [index, { name, password_file: path }] of this.#callers.clients.entries()) {
      if (path === undefined || this.#passwords.get(name)?.() !== undefined) continue;
      const message = `${path} cannot be read, or is empty`;
      found.push({ path: ["callers", "clients", index, "password_file"], message });
    }
    const { directory } = this.#callers;
    if (directory !== undefined && !isDirectory(directory)) {
      found.push({ path: ["callers", "directory"], message: `${directory} is not a directory` });
    }
    return found;
  }

  byCertificateName(name: string): string | undefined {
    return this.#certificates.get(name);
  }

  has(name: string): boolean {
    return (
      this.passwordDigest(name) !== undefined || [...this.#certificates.values()].includes(name)
    );
  }

  passwordDigest(name: string): Buffer | undefined {
    const listed = this.#passwords.get(name);
    if (listed !== undefined) return listed();
    const { directory } = this.#callers;
    // The keys of a Kubernetes Secret; names with a dot in front are those by which it swaps the directory.
    if (directory === undefined || !/^[\w-][\w.-]{0,252}$/.test(name)) return undefined;
    const path = join(directory, name);
    // A removed file is a removed caller, whatever is remembered of it.
    if (!isFile(path)) {
      this.#files.delete(path);
      return undefined;
    }
    const file = this.#files.get(path) ?? this.#watch(path);
    if (this.#files.size < maxRememberedFiles) this.#files.set(path, file);
    return file.current();
  }

  #watch(path: string): WatchedFile<Buffer> {
    return new WatchedFile({
      path,
      clock: { now: () => Date.now() },
      maxBytes: maxPasswordBytes,
      parse: (text) => digest(credentialText(text)),
      onProblem: (problem) => this.#log.error({ problem }, "password of a caller not read"),
    });
  }
}

/** A file that cannot be looked at proves nothing. */
function isFile(path: string): boolean {
  try {
    return statSync(path).isFile();
  } catch {
    return false;
  }
}
