/** The frames of one stream: also what is spread over several of them. */
import type { Finding } from "../../dlp/detectors.ts";
import type { Scanner } from "../../dlp/scanner.ts";
import type { Wanted } from "../../dlp/scanner-options.ts";
import { StreamScanner } from "../../dlp/stream-scanner.ts";
import { jsonOf } from "../../protocols/message-json.ts";

/** Texts that grow by pieces, as the words of a model do, each under a path of its own. */
const maxTexts = 32;
const maxDepth = 32;

/** What a frame shows that its predecessors began. */
export class FrameStream {
  readonly #scanner: Scanner;
  readonly #wanted: Wanted;
  readonly #texts = new Map<string, StreamScanner>();

  constructor(scanner: Scanner, wanted: Wanted) {
    this.#scanner = scanner;
    this.#wanted = wanted;
  }

  /** Findings that end in this frame and began in an earlier one. */
  push(data: Buffer): readonly Finding[] {
    const found: Finding[] = [];
    const json = jsonOf(data);
    if (json.kind === "json") this.#leaves(json.value, "$", 0, found);
    else found.push(...this.#spread("", data));
    return found;
  }

  #leaves(value: unknown, path: string, depth: number, found: Finding[]): void {
    if (typeof value === "string") found.push(...this.#spread(path, Buffer.from(value)));
    else if (typeof value === "object" && value !== null && depth < maxDepth) {
      for (const [key, item] of Object.entries(value))
        this.#leaves(item, `${path}.${key}`, depth + 1, found);
    }
  }

  #spread(path: string, piece: Buffer): readonly Finding[] {
    let text = this.#texts.get(path);
    if (text === undefined) {
      if (this.#texts.size >= maxTexts) return [];
      text = new StreamScanner(this.#scanner, this.#wanted);
      this.#texts.set(path, text);
    }
    const before = text.length;
    return text.push(piece).findings.filter(({ start }) => start < before);
  }
}
