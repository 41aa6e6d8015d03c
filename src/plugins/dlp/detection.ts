/** The scanner of one instance: the formats that come with the proxy, its own secrets, and the detectors of the file. */
import { createHash } from "node:crypto";
import { ownSecrets, leastSecretBytes } from "../../dlp/own-secrets.ts";
import { leastWordBytes, listWords, Scanner } from "../../dlp/scanner.ts";
import { messageOf } from "../../errors.ts";
import { WatchedFile } from "../../files/watched-file.ts";
import { type ConfigProblem, PluginConfigError, type PluginDeps } from "../../pipeline/plugin.ts";
import { compileLinearPattern } from "../../policy/tools/linear-pattern.ts";
import type { DlpConfig } from "./config.ts";
import { SharedSecrets } from "./shared-secrets.ts";

type Words = readonly Buffer[];

const maxListBytes = 8 * 1024 * 1024;
const maxWordBytes = 4_096;
const maxWords = 100_000;

/** Makes the scanner anew when a list has changed. */
export class Detection {
  readonly #config: DlpConfig;
  readonly #patterns: ConstructorParameters<typeof Scanner>[0]["patterns"];
  readonly #lists: ReadonlyMap<string, WatchedFile<Words>>;
  readonly #onChange: (basis: string) => void;
  #seen: readonly (Words | undefined)[] = [];
  #scanner: Scanner | undefined;

  /** `onChange` hears the basis of verdicts when a list has changed. */
  constructor(config: DlpConfig, deps: PluginDeps, onChange: (basis: string) => void) {
    this.#config = config;
    this.#onChange = onChange;
    const problems: ConfigProblem[] = [];
    this.#patterns = config.patterns.flatMap(({ name, pattern }, index) => {
      try {
        const compiled = compileLinearPattern(pattern);
        return [{ name, spans: (text: string, most: number) => compiled.spans(text, most) }];
      } catch (error) {
        problems.push({ path: ["patterns", index, "pattern"], message: messageOf(error) });
        return [];
      }
    });
    this.#lists = new Map(config.lists.map(({ name, file }) => [name, watched(file, deps)]));
    for (const [index, list] of [...this.#lists.values()].entries()) {
      if (list.current() === undefined)
        problems.push({
          path: ["lists", index, "file"],
          message: list.problem ?? "cannot be read",
        });
    }
    if (problems.length > 0) throw new PluginConfigError(problems);
    if (!deps.isAlone) deps.carry("own-secrets", () => new SharedSecrets(deps, ownSecrets()));
  }

  get scanner(): Scanner {
    const seen = [...this.#lists.values()].map((list) => list.current());
    const isSame = seen.every((words, index) => words === this.#seen[index]);
    if (this.#scanner !== undefined && isSame) return this.#scanner;
    const isChanged = this.#scanner !== undefined;
    this.#seen = seen;
    const names = [...this.#lists.keys()];
    const words = new Map(seen.map((list, index) => [names[index] ?? "", list ?? []]));
    this.#scanner = new Scanner({
      own: ownSecrets(),
      lists: listWords(words),
      patterns: this.#patterns,
      maxDepth: this.#config.max_depth,
      maxDecodedBytes: this.#config.max_decoded_bytes,
    });
    if (isChanged) this.#onChange(this.basis);
    return this.#scanner;
  }

  /** Everything that a verdict depends on besides the message and the secrets of the proxy: the same in every replica. */
  get basis(): string {
    const lists = [...this.#lists.values()].map((list) => {
      const digest = createHash("sha256");
      for (const word of list.current() ?? []) digest.update(word).update("\n");
      return digest.digest("base64");
    });
    return JSON.stringify([this.#config, lists]);
  }

  /** Words about secrets that are not looked for, where there are any. */
  warning(): string | undefined {
    const { short } = ownSecrets();
    return short === 0
      ? undefined
      : `${short} secrets of this process have fewer than ${leastSecretBytes} bytes: they are not looked for`;
  }
}

function watched(path: string, deps: PluginDeps): WatchedFile<Words> {
  return new WatchedFile<Words>({
    path,
    clock: deps.clock,
    maxBytes: maxListBytes,
    parse: wordsOf,
    onProblem: (problem) => deps.log.warn({ problem }, "list of dlp not usable"),
  });
}

function wordsOf(text: string): Words {
  const words: Buffer[] = [];
  for (const [index, line] of text.split(/\r?\n/).entries()) {
    const word = Buffer.from(line.trim());
    if (word.length === 0 || line.startsWith("#")) continue;
    if (word.length < leastWordBytes || word.length > maxWordBytes)
      throw new Error(`line ${index + 1} does not have ${leastWordBytes} to ${maxWordBytes} bytes`);
    if (words.push(word) > maxWords) throw new Error(`it has more than ${maxWords} lines`);
  }
  return words;
}
