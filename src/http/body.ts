/** Bounded bodies: what may be held in memory, and for how much of it the whole process may be talked into. */
import { brotliDecompress, gunzip, inflate, inflateRaw, zstdDecompress } from "node:zlib";
import type { BodySink, BodySource } from "./body-source.ts";
import { Gathered } from "./gathered.ts";

/** Bytes that several budgets have in common. */
export interface SharedBytes {
  readonly taken: number;
  take(limit: number, many: number): boolean;
  book(change: number): void;
}

/** A limit on the bytes of all buffered bodies together, and of what slow readers leave lying. */
export class BodyBudget {
  readonly limitBytes: number;
  /** Absent where this is the only budget of the process. */
  readonly #shared: SharedBytes | undefined;
  #usedBytes = 0;
  #makeRoom: ((bytes: number) => void) | undefined;

  constructor(limitBytes: number, shared?: SharedBytes) {
    this.limitBytes = limitBytes;
    this.#shared = shared;
  }

  /** Says who can make room when there is none. */
  onShort(makeRoom: (bytes: number) => void): void {
    this.#makeRoom = makeRoom;
  }

  get usedBytes(): number {
    return this.#shared?.taken ?? this.#usedBytes;
  }

  /** Takes the bytes when they are there, and says whether they were. */
  acquire(bytes: number): boolean {
    if (this.#shared !== undefined) {
      if (this.#shared.take(this.limitBytes, bytes)) return true;
      this.#makeRoom?.(bytes);
      return this.#shared.take(this.limitBytes, bytes);
    }
    if (this.#usedBytes + bytes > this.limitBytes) {
      this.#makeRoom?.(bytes);
      if (this.#usedBytes + bytes > this.limitBytes) return false;
    }
    this.#usedBytes += bytes;
    return true;
  }

  /** Books what is held already, whether there is room or not. */
  book(change: number): void {
    if (this.#shared === undefined) this.#usedBytes = Math.max(0, this.#usedBytes + change);
    else this.#shared.book(change);
  }

  /** Gives back what was acquired. */
  release(bytes: number): void {
    this.book(-bytes);
  }
}

/** What bounds one body. */
export interface ReadLimits {
  readonly limitBytes: number;
  readonly budget: BodyBudget;
  readonly signal: AbortSignal;
}

/** A body that was read, or why it was not; "failed" is a stream that broke off. */
export type BoundedBody =
  | {
      readonly kind: "body";
      readonly bytes: Buffer;
      /** Gives the memory back to the budget; call it once the bytes are no longer held. A second call does nothing. */
      readonly release: () => void;
    }
  | {
      readonly kind: "too-large" | "over-budget";
      /** What was read before it was too much; the stream gives the rest. */
      readonly chunks: readonly Buffer[];
      readonly release: () => void;
    }
  | { readonly kind: "aborted" }
  | { readonly kind: "failed"; readonly error: Error };

/**
 * Reads a body to its end into one buffer. Never rejects.
 *
 * When it is not read to its end the source is left detached, not destroyed: its owner still has to answer on it.
 */
export function readBounded(source: BodySource, limits: ReadLimits): Promise<BoundedBody> {
  return new Promise((resolve) => {
    new BoundedReading(limits, resolve).read(source);
  });
}

class BoundedReading implements BodySink {
  readonly #limits: ReadLimits;
  readonly #resolve: (outcome: BoundedBody) => void;
  readonly #chunks = new Gathered();
  #heldBytes = 0;
  #source: BodySource | undefined;

  constructor(limits: ReadLimits, resolve: (outcome: BoundedBody) => void) {
    this.#limits = limits;
    this.#resolve = resolve;
  }

  read(source: BodySource): void {
    const { signal } = this.#limits;
    this.#source = source;
    if (signal.aborted) {
      this.#give({ kind: "aborted" });
      return;
    }
    signal.addEventListener("abort", this.#onAbort);
    source.open(this);
  }

  data(chunk: Buffer): boolean {
    const { limitBytes, budget } = this.#limits;
    this.#chunks.push(chunk);
    const isTooLarge = this.#heldBytes + chunk.length > limitBytes;
    if (isTooLarge || !budget.acquire(chunk.length)) {
      const kind = isTooLarge ? "too-large" : "over-budget";
      this.#give({ kind, chunks: this.#chunks.pieces(), release: this.#release });
      return false;
    }
    this.#heldBytes += chunk.length;
    return true;
  }

  end(): void {
    this.#give({ kind: "body", bytes: this.#chunks.takeAll(), release: this.#release });
  }

  fail(error: Error): void {
    this.#give({ kind: "failed", error });
  }

  #give(outcome: BoundedBody): void {
    this.#limits.signal.removeEventListener("abort", this.#onAbort);
    if (outcome.kind !== "body") this.#source?.detach();
    if (outcome.kind === "aborted" || outcome.kind === "failed") this.#release();
    this.#resolve(outcome);
  }

  readonly #onAbort = (): void => this.#give({ kind: "aborted" });

  readonly #release = (): void => {
    this.#limits.budget.release(this.#heldBytes);
    this.#heldBytes = 0;
    this.#chunks.clear();
  };
}

/** A body in the clear, or why it is not. */
export type DecodedBody =
  | { readonly kind: "body"; readonly bytes: Buffer }
  | { readonly kind: "unsupported" }
  | { readonly kind: "too-large" }
  | { readonly kind: "corrupt" };

/** What zlib made of the bytes, and of how many of them it made it. */
interface Decompressed {
  readonly buffer: Buffer;
  readonly engine: { readonly bytesWritten: number };
}

type Decompress = (
  bytes: Buffer,
  options: { readonly maxOutputLength: number; readonly info: true },
  done: (error: Error | null, result: Decompressed) => void,
) => void;

/** The types of Node do not know that `info: true` changes the result. */
const decompressors = { gunzip, inflate, inflateRaw, brotliDecompress, zstdDecompress } as Record<
  "gunzip" | "inflate" | "inflateRaw" | "brotliDecompress" | "zstdDecompress",
  unknown
> as Readonly<Record<string, Decompress>>;

type Decoder = (bytes: Buffer, maxOutputLength: number) => Promise<Buffer>;

function decoder(name: keyof typeof decompressors): Decoder {
  const decompress = decompressors[name];
  if (decompress === undefined) throw new TypeError(`there is no ${name}`);
  return (bytes, maxOutputLength) =>
    new Promise((resolve, reject) => {
      decompress(bytes, { maxOutputLength, info: true }, (error, result) => {
        if (error !== null) reject(error);
        // What follows the end of the compressed data is nothing to one reader and more data to another.
        else if (result.engine.bytesWritten < bytes.length) reject(new Error("trailing data"));
        else resolve(result.buffer);
      });
    });
}

const inflateBytes = decoder("inflate");
const inflateRawBytes = decoder("inflateRaw");

/** "deflate" is zlib, but raw deflate is sent under that name too; what can be read as both is neither. */
const inflateEither: Decoder = async (bytes, maxOutputLength) => {
  const looksZlib = ((bytes[0] ?? 0) & 0x0f) === 8;
  if (!looksZlib) return inflateRawBytes(bytes, maxOutputLength);
  const clear = await inflateBytes(bytes, maxOutputLength);
  const isRawToo = await inflateRawBytes(bytes, maxOutputLength).then(
    () => true,
    () => false,
  );
  if (isRawToo) throw new Error("deflate in two readings");
  return clear;
};

/** The codings of RFC 9110 section 8.4.1, RFC 7932 and RFC 8878. */
const decoders: ReadonlyMap<string, Decoder> = new Map<string, Decoder>([
  ["gzip", decoder("gunzip")],
  ["x-gzip", decoder("gunzip")],
  ["deflate", inflateEither],
  ["br", decoder("brotliDecompress")],
  ["zstd", decoder("zstdDecompress")],
]);

/** Content codings that one body may carry: every one of them can multiply the size of its input. */
export const mostCodings = 2;

/** The codings of a Content-Encoding field in the order in which they were applied, without those that do nothing. */
export function contentCodings(contentEncoding: string | undefined): string[] {
  return (contentEncoding ?? "")
    .split(",")
    .map((coding) => coding.trim().toLowerCase())
    .filter((coding) => coding !== "" && coding !== "identity");
}

/** Undoes a Content-Encoding, last coding first, with at most `limitBytes` after each step. Never rejects. */
export async function decodeBody(
  bytes: Buffer,
  contentEncoding: string | undefined,
  limitBytes: number,
): Promise<DecodedBody> {
  const codings = contentCodings(contentEncoding);
  const steps = codings.map((coding) => decoders.get(coding));
  if (codings.length > mostCodings || steps.includes(undefined)) {
    return { kind: "unsupported" };
  }
  let clear = bytes;
  for (const decode of steps.toReversed()) {
    try {
      clear = (await decode?.(clear, limitBytes)) ?? clear;
    } catch (error) {
      return { kind: isTooLarge(error) ? "too-large" : "corrupt" };
    }
  }
  return clear.length > limitBytes ? { kind: "too-large" } : { kind: "body", bytes: clear };
}

function isTooLarge(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ERR_BUFFER_TOO_LARGE";
}
