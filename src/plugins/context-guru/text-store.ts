/** The texts that were shortened, each for the session that it came in; nobody else can ask for it. */
import type { Clock } from "../../pipeline/plugin.ts";

/** What stands in place of an output. */
export interface ShortText {
  /** Undefined where it is better left as it is. */
  readonly json: string | undefined;
  readonly kind: string;
}

/** What is kept of one output. */
export interface KeptText extends ShortText {
  readonly whole: string;
}

/** Options of a {@link TextStore}. */
export interface TextStoreOptions {
  readonly clock: Clock;
  /** Of all texts, about. One session has at most a quarter of it. */
  readonly maxBytes: number;
  /** Texts of one session. */
  readonly maxTexts: number;
  /** After its last use. */
  readonly ttlMs: number;
  onEvicted(this: void): void;
}

interface Entry extends KeptText {
  readonly bytes: number;
  usedAt: number;
}

interface Shelf {
  readonly texts: Map<string, Entry>;
  bytes: number;
}

const overheadBytes = 256;
const maxOwners = 10_000;

/** One store for all generations of an instance. Sessions and texts are in the order of their last use. */
export class TextStore {
  readonly #options: TextStoreOptions;
  readonly #shelves = new Map<string, Shelf>();
  #bytes = 0;

  constructor(options: TextStoreOptions) {
    this.#options = options;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** What stands in place of these texts of this owner, in their order; they count as used. */
  find(owner: string, ids: readonly string[]): readonly (ShortText | undefined)[] {
    return ids.map((id) => {
      const entry = this.get(owner, id);
      return entry && { json: entry.json, kind: entry.kind };
    });
  }

  /** The whole text of this owner; it counts as used. */
  whole(owner: string, id: string): string | undefined {
    return this.get(owner, id)?.whole;
  }

  get(owner: string, id: string): KeptText | undefined {
    this.#expire();
    const shelf = this.#shelves.get(owner);
    const entry = shelf?.texts.get(id);
    if (shelf === undefined || entry === undefined) return undefined;
    entry.usedAt = this.#options.clock.now();
    shelf.texts.delete(id);
    shelf.texts.set(id, entry);
    this.#shelves.delete(owner);
    this.#shelves.set(owner, shelf);
    return entry;
  }

  /** What is kept: the text that is there already, or this one. Undefined where it is larger than what one session may have. */
  put(owner: string, id: string, text: KeptText): ShortText | undefined {
    const [known] = this.find(owner, [id]);
    if (known !== undefined) return known;
    const bytes = sizeOf(text.whole) + sizeOf(text.json ?? "") + overheadBytes;
    const { maxBytes, maxTexts, clock } = this.#options;
    const maxOwn = maxBytes / 4;
    if (bytes > maxOwn) return undefined;
    this.#expire();
    const shelf = this.#shelves.get(owner) ?? { texts: new Map<string, Entry>(), bytes: 0 };
    this.#shelves.delete(owner);
    this.#shelves.set(owner, shelf);
    while (shelf.texts.size >= maxTexts || shelf.bytes + bytes > maxOwn) this.#evict(owner, shelf);
    shelf.texts.set(id, { ...text, bytes, usedAt: clock.now() });
    shelf.bytes += bytes;
    this.#bytes += bytes;
    // A shelf may have lost its last text, and its place.
    this.#shelves.set(owner, shelf);
    while (this.#bytes > maxBytes || this.#shelves.size > maxOwners) this.#evictOldest();
    return { json: text.json, kind: text.kind };
  }

  close(): void {
    this.#shelves.clear();
    this.#bytes = 0;
  }

  #evictOldest(): void {
    for (const [owner, shelf] of this.#shelves) {
      this.#evict(owner, shelf);
      return;
    }
  }

  #evict(owner: string, shelf: Shelf): void {
    for (const id of shelf.texts.keys()) {
      this.#remove(owner, shelf, id);
      this.#options.onEvicted();
      return;
    }
  }

  /** Sessions that were used last are behind those that were not. */
  #expire(): void {
    const oldest = this.#options.clock.now() - this.#options.ttlMs;
    for (const [owner, shelf] of this.#shelves) {
      for (const [id, { usedAt }] of shelf.texts) {
        if (usedAt > oldest) break;
        this.#remove(owner, shelf, id);
      }
      if (shelf.texts.size > 0) return;
    }
  }

  #remove(owner: string, shelf: Shelf, id: string): void {
    const entry = shelf.texts.get(id);
    if (entry === undefined) return;
    shelf.texts.delete(id);
    shelf.bytes -= entry.bytes;
    this.#bytes -= entry.bytes;
    if (shelf.texts.size === 0) this.#shelves.delete(owner);
  }
}

function sizeOf(text: string): number {
  return Buffer.byteLength(text);
}
