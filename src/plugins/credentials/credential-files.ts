/** The credential files of one plugin instance: read on demand, with problems in the log, and one reason for all of them. */
import { existsSync } from "node:fs";
import { FilePair } from "../../files/file-pair.ts";
import { WatchedFile } from "../../files/watched-file.ts";
import { PluginConfigError, type PluginDeps } from "../../pipeline/plugin.ts";
import type { SecretSource } from "../../secrets/secret-source.ts";

/** What may have a value now. */
export interface Current<T> {
  readonly problem: string | undefined;
  current(): T | undefined;
}

/** What is needed of a plugin's dependencies. */
export type IdentityDeps = Pick<PluginDeps, "clock" | "log" | "jwtSvids" | "x509Svids"> & {
  /** Where the client secret comes from, if from a source. */
  readonly clientSecret?: SecretSource | undefined;
};

/** A key of `identity`, and the file that it names. */
export interface NamedFile {
  readonly key: string;
  readonly path: string;
}

/** Opens files and remembers what is wrong with them. */
export class CredentialFiles {
  readonly #deps: IdentityDeps;
  readonly #block: string;
  readonly #sources: Current<unknown>[] = [];

  /** `block` is the key of the configuration that the files are named in. */
  constructor(deps: IdentityDeps, block = "identity") {
    this.#deps = deps;
    this.#block = block;
  }

  /** Takes a source of another kind among those that are asked what is wrong. */
  watch<T>(source: Current<T>): Current<T> {
    this.#sources.push(source);
    return source;
  }

  /** What is wrong with the first that has something wrong. */
  problem(): string | undefined {
    return this.#sources.map(({ problem }) => problem).find((text) => text !== undefined);
  }

  /** `isOptional`: that the file does not exist is no problem. */
  file<T>(path: string, parse: (text: string) => T, isOptional = false): WatchedFile<T> {
    const file = new WatchedFile<T>({
      path,
      clock: this.#deps.clock,
      parse,
      onProblem: (problem, isMissing) => {
        if (isMissing && isOptional) return;
        this.#deps.log.warn({ problem }, "credential file not usable");
      },
    });
    if (!isOptional) this.watch(file);
    return file;
  }

  /** A file that holds no usable credential is a mistake of the operator; one that is not there may still come. */
  checked<T>(key: string, path: string, parse: (text: string) => T): WatchedFile<T> {
    const file = this.file(path, parse);
    if (file.current() === undefined && existsSync(path)) refuse(key, file.problem, this.#block);
    return file;
  }

  /** Two files that are one credential together; two that are there and do not fit are a mistake, too. */
  pair<A, B, T>(
    { key, path }: NamedFile,
    first: WatchedFile<A>,
    second: WatchedFile<B>,
    combine: (first: A, second: B) => T,
  ): Current<T> {
    const onProblem = (problem: string): void =>
      this.#deps.log.warn({ problem }, "credential file not usable");
    const pair = new FilePair({ path, first, second, combine, onProblem });
    this.watch(pair);
    const isThere = first.current() !== undefined && second.current() !== undefined;
    if (pair.current() === undefined && isThere) refuse(key, pair.problem, this.#block);
    return pair;
  }

  /** A credential that is only good until its end. */
  lasting<T extends { readonly endsAt: number }>(
    source: Current<T>,
    path: string,
    what: string,
  ): Current<T> {
    const { clock } = this.#deps;
    const lasting: Current<T> & { problem: string | undefined } = {
      problem: undefined,
      current: () => {
        const value = source.current();
        const hasEnded = value !== undefined && value.endsAt <= clock.now();
        lasting.problem = hasEnded ? `${path}: the ${what} has expired` : undefined;
        return hasEnded ? undefined : value;
      },
    };
    return this.watch(lasting);
  }
}

/** A key of `identity`, or of another block, that cannot be followed. */
export function refuse(key: string, message = "cannot be used", block = "identity"): never {
  throw new PluginConfigError([{ path: [block, key], message }]);
}
