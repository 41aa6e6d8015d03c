/**
 * Bodies in aws-chunked framing whose chunks are signed, each signature built on the one before: signed anew chunk by
 * chunk, in the same framing and so in the same length. No more than one chunk is held.
 */
import { createHash, type Hash } from "node:crypto";
import { ProxyError } from "../../errors.ts";
import type { BodySink, BodySource } from "../../http/body-source.ts";
import { Gathered } from "../../http/gathered.ts";
import type { LeavingRequest } from "../../pipeline/plugin.ts";
import { emptyHash } from "./canonical.ts";
import { scopeText, sha256, type SigningKeys, type SigningScope } from "./signing-keys.ts";

/** Values of `x-amz-content-sha256` for bodies whose chunks are signed. */
export const signedChunks: ReadonlySet<string> = new Set([
  "STREAMING-AWS4-HMAC-SHA256-PAYLOAD",
  "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER",
  "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD",
  "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD-TRAILER",
]);

/** Who signs: with what, when, and the signature that the first chunk's is built on. */
export interface ChunkSigner {
  readonly keys: SigningKeys;
  readonly scope: SigningScope;
  readonly time: string;
  readonly seed: string;
}

/** Both ends of a body that is signed anew. */
export interface ChunkTerms {
  /** Absent where the stand-in secret is not known: signatures of the agent are then replaced unread. */
  readonly from: ChunkSigner | undefined;
  readonly to: ChunkSigner;
  readonly hasTrailer: boolean;
  readonly maxChunkBytes: number;
  /** `x-amz-decoded-content-length`. */
  readonly decodedLength: number | undefined;
  /** Counts the chunk that is held. */
  readonly budget: LeavingRequest["budget"];
}

/** `10000;chunk-signature=` and the longest signature. */
const maxLine = 256;
const maxTrailerBytes = 16_384;
/** Signatures of Version 4A differ in length, and are filled up in a chunk. */
const paddedLength = 144;
const maxTries = 1_000;
const crlf = Buffer.from("\r\n");

type Step = "size" | "data" | "data-end" | "trailer" | "over";

/** Signs the chunks of one body; each call gives what can be sent by now. Throws ProxyError. */
export class ChunkResigner {
  readonly #terms: ChunkTerms;
  readonly #from: Chain | undefined;
  readonly #to: Chain;
  #step: Step = "size";
  /** The beginning of a line whose end has not come. */
  #line = "";
  readonly #held = new Gathered();
  #missing = 0;
  /** Of the budget, for the chunk that is held. */
  #taken = 0;
  #decoded = 0;
  #digest: Hash | undefined;
  #given = "";
  #size = "";
  #trailer: string[] = [];
  #trailerBytes = 0;

  constructor(terms: ChunkTerms) {
    this.#terms = terms;
    this.#from = terms.from === undefined ? undefined : new Chain(terms.from);
    this.#to = new Chain(terms.to);
  }

  push(chunk: Buffer): Buffer[] {
    const made: Buffer[] = [];
    let at = 0;
    while (at < chunk.length) {
      if (this.#step === "over") throw malformed("goes on behind its last chunk");
      if (this.#step === "data") {
        const part = chunk.subarray(at, at + this.#missing);
        at += part.length;
        this.#missing -= part.length;
        this.#digest?.update(part);
        this.#held.push(part);
        if (this.#missing === 0) this.#step = "data-end";
        continue;
      }
      const end = chunk.indexOf(0x0a, at);
      const stop = end === -1 ? chunk.length : end + 1;
      this.#line += chunk.toString("latin1", at, stop);
      at = stop;
      if (this.#line.length > (this.#step === "trailer" ? maxTrailerBytes : maxLine))
        throw malformed("has a line that is too long");
      if (end === -1) break;
      const line = this.#line.replace(/\r?\n$/, "");
      this.#line = "";
      this.#read(line, made);
    }
    return made;
  }

  /** Gives back what is held; nothing more may come. */
  close(): void {
    this.#held.clear();
    this.#terms.budget.release(this.#taken);
    this.#taken = 0;
  }

  /** The body is over; throws where it is not whole. */
  end(): void {
    if (this.#step !== "over") throw malformed("ends before its last chunk");
    const { decodedLength } = this.#terms;
    if (decodedLength !== undefined && decodedLength !== this.#decoded)
      throw malformed("has another length than x-amz-decoded-content-length says");
  }

  #read(line: string, made: Buffer[]): void {
    if (this.#step === "size") this.#begin(line, made);
    else if (this.#step === "data-end") {
      if (line !== "") throw malformed("has a chunk of another length than it says");
      this.#step = "size";
      made.push(this.#finish());
    } else this.#readTrailer(line, made);
  }

  #begin(line: string, made: Buffer[]): void {
    const [, size = "", given = ""] =
      /^([0-9a-fA-F]{1,8});chunk-signature=([0-9a-f]+\**)$/.exec(line) ?? [];
    const isHmac = this.#terms.to.scope.algorithm === "AWS4-HMAC-SHA256";
    if (given.length !== (isHmac ? 64 : paddedLength))
      throw malformed("has a chunk whose size or signature cannot be read");
    const bytes = Number.parseInt(size, 16);
    const { maxChunkBytes, hasTrailer } = this.#terms;
    if (bytes > maxChunkBytes) {
      const message = `a chunk of ${bytes} bytes is more than is held to be signed anew (max_chunk_bytes of aws-sigv4)`;
      throw new ProxyError("request.body-too-large", message);
    }
    if (!this.#terms.budget.acquire(bytes)) {
      const message = "too many bodies are being signed anew (limits.max_buffered)";
      throw new ProxyError("proxy.overloaded", message);
    }
    this.#taken = bytes;
    this.#size = size;
    this.#given = given;
    this.#missing = bytes;
    this.#decoded += bytes;
    this.#digest = bytes === 0 ? undefined : createHash("sha256");
    if (bytes > 0) this.#step = "data";
    else if (hasTrailer) {
      made.push(this.#finish());
      this.#step = "trailer";
    } else this.#step = "data-end";
  }

  /** The chunk as it is sent; the last one ends the body, unless a trailer follows. */
  #finish(): Buffer {
    const digest = this.#digest?.digest("hex") ?? emptyHash;
    const isLast = this.#digest === undefined;
    const { hasTrailer } = this.#terms;
    if (this.#from?.take(digest, this.#given.replace(/\*+$/, "")) === false)
      throw mismatch("a chunk");
    const head = Buffer.from(`${this.#size};chunk-signature=${this.#to.next(digest)}\r\n`);
    const held = this.#held.pieces();
    this.close();
    this.#digest = undefined;
    if (isLast && !hasTrailer) this.#step = "over";
    return isLast && hasTrailer ? head : Buffer.concat([head, ...held, crlf]);
  }

  #readTrailer(line: string, made: Buffer[]): void {
    this.#trailerBytes += line.length + 2;
    if (this.#trailerBytes > maxTrailerBytes) throw malformed("has a trailer that is too long");
    if (line !== "") {
      this.#trailer.push(line);
      return;
    }
    const fields = this.#trailer.map(split);
    const [signature, ...more] = fields.filter(isSignature);
    const given = signature?.[1]?.trim() ?? "";
    const isHmac = this.#terms.to.scope.algorithm === "AWS4-HMAC-SHA256";
    const pattern = isHmac ? /^[0-9a-f]{64}$/ : /^(?=.{16,144}$)[0-9a-f]+\**$/;
    if (more.length > 0 || !pattern.test(given))
      throw malformed("has a trailer whose signature cannot be read");
    const signed = fields
      .filter((field) => !isSignature(field))
      .map(([name, value]) => `${name.trim().toLowerCase()}:${value.trim()}\n`)
      .sort();
    const digest = sha256(signed.join(""));
    if (this.#from?.take(digest, given.replace(/\*+$/, ""), true) === false)
      throw mismatch("the trailer");
    const own = this.#to.next(digest, given.length);
    const text = this.#trailer.map((field) =>
      isSignature(split(field)) ? field.replace(given, own) : field,
    );
    made.push(Buffer.from(`${text.join("\r\n")}\r\n\r\n`, "latin1"));
    this.#step = "over";
  }
}

function split(field: string): readonly [name: string, value: string] {
  const colon = field.indexOf(":");
  return colon === -1 ? [field, ""] : [field.slice(0, colon), field.slice(colon + 1)];
}

function isSignature([name]: readonly [string, string]): boolean {
  return name.toLowerCase() === "x-amz-trailer-signature";
}

/** Signatures of which each one covers the one before. */
class Chain {
  readonly #signer: ChunkSigner;
  #previous: string;

  constructor(signer: ChunkSigner) {
    this.#signer = signer;
    this.#previous = signer.seed;
  }

  /** The next signature as it is written; with a length, that of a trailer, which takes up as much as the other one did. */
  next(digest: string, length?: number): string {
    const { keys, scope } = this.#signer;
    const text = this.#text(digest, length !== undefined);
    const isFilled = length === undefined || length === paddedLength;
    // Signatures of Version 4A differ in length by chance: the length of the body was announced.
    for (let tries = 0; tries < maxTries; tries += 1) {
      this.#previous = keys.sign(scope, text);
      if (scope.algorithm === "AWS4-HMAC-SHA256") return this.#previous;
      if (isFilled) return this.#previous.padEnd(paddedLength, "*");
      if (this.#previous.length === length) return this.#previous;
    }
    throw malformed("has a trailer whose signature has an unusual length");
  }

  /** Whether the signature is that of what comes next. */
  take(digest: string, given: string, isTrailer = false): boolean {
    const { keys, scope } = this.#signer;
    const isRight = keys.verify(scope, this.#text(digest, isTrailer), given);
    this.#previous = given;
    return isRight;
  }

  #text(digest: string, isTrailer: boolean): string {
    const { scope, time } = this.#signer;
    const kind = `${scope.algorithm}-${isTrailer ? "TRAILER" : "PAYLOAD"}`;
    const covered = isTrailer ? [digest] : [emptyHash, digest];
    return [kind, time, scopeText(scope), this.#previous, ...covered].join("\n");
  }
}

function malformed(what: string): ProxyError {
  return new ProxyError("request.malformed", `the aws-chunked body ${what}`);
}

function mismatch(what: string): ProxyError {
  const message = `the signature of ${what} is not one of the stand-in key`;
  return new ProxyError("policy.forbidden", message);
}

/** A whole body, signed anew. */
export function resignedWhole(body: Buffer, terms: ChunkTerms): Buffer {
  const resigner = new ChunkResigner(terms);
  try {
    const made = resigner.push(body);
    resigner.end();
    return Buffer.concat(made);
  } finally {
    resigner.close();
  }
}

/** A body that is signed anew on its way. */
export class ResignedBody implements BodySource, BodySink {
  readonly #source: BodySource;
  readonly #resigner: ChunkResigner;
  #sink: BodySink | undefined;
  #isFailed = false;

  constructor(source: BodySource, terms: ChunkTerms) {
    this.#source = source;
    this.#resigner = new ChunkResigner(terms);
  }

  get isComplete(): boolean {
    return this.#source.isComplete;
  }

  open(sink: BodySink): void {
    this.#sink = sink;
    this.#source.open(this);
  }

  resume(): void {
    this.#source.resume();
  }

  detach(): void {
    this.#sink = undefined;
    this.#source.detach();
  }

  close(): void {
    this.#stop();
    this.#source.close?.();
  }

  data(chunk: Buffer): boolean {
    if (this.#isFailed) return false;
    try {
      let isFree = true;
      for (const made of this.#resigner.push(chunk)) isFree = this.#sink?.data(made) ?? false;
      return isFree;
    } catch (error) {
      this.fail(error as Error);
      return false;
    }
  }

  end(): void {
    if (this.#isFailed) return;
    try {
      this.#resigner.end();
    } catch (error) {
      this.fail(error as Error);
      return;
    }
    this.#sink?.end();
  }

  fail(error: Error): void {
    if (this.#isFailed) return;
    this.#stop();
    this.#sink?.fail(error);
  }

  #stop(): void {
    this.#isFailed = true;
    this.#resigner.close();
  }
}
