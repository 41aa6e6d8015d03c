/** Reads HTTP/1.1 messages as they are on the wire: exact heads, bodies by their framing, trailers. */
import type { ByteReader } from "./byte-reader.ts";

/** One field line. */
export type Field = readonly [name: string, value: string];

/** A message head: the start line and the fields in their order and spelling. */
export class MessageHead {
  readonly text: string;
  readonly startLine: string;
  readonly fields: readonly Field[];

  constructor(text: string) {
    const [startLine = "", ...lines] = text.trimEnd().split("\r\n");
    this.text = text;
    this.startLine = startLine;
    this.fields = lines.map((line) => {
      const colon = line.indexOf(":");
      return [line.slice(0, colon), line.slice(colon + 1).trim()];
    });
  }

  /** All values of the field, one per line. */
  all(name: string): string[] {
    return this.fields.filter(([n]) => n.toLowerCase() === name.toLowerCase()).map(([, v]) => v);
  }

  /** The values joined by ", ", or undefined when there is no such line. */
  header(name: string): string | undefined {
    const values = this.all(name);
    return values.length === 0 ? undefined : values.join(", ");
  }

  /** Names in lower case, in order. */
  get names(): string[] {
    return this.fields.map(([name]) => name.toLowerCase());
  }
}

/** A body with what came after it. */
export interface MessageBody {
  readonly bytes: Buffer;
  readonly trailers: readonly Field[];
  /** Sizes of the chunks, when it was chunked. */
  readonly chunks?: readonly number[];
}

/** Reads a head; undefined when the connection ended cleanly before its first byte. */
export async function readHead(reader: ByteReader): Promise<MessageHead | undefined> {
  if (reader.hasEnded) return undefined;
  return new MessageHead(await reader.until("\r\n\r\n"));
}

/** Reads one chunk; the last one is empty. */
export async function readChunk(reader: ByteReader): Promise<Buffer> {
  const line = await reader.until("\r\n");
  const size = Number.parseInt(line, 16);
  if (!Number.isInteger(size)) throw new Error(`not a chunk size: ${JSON.stringify(line)}`);
  if (size === 0) return Buffer.alloc(0);
  const data = await reader.exactly(size);
  await reader.until("\r\n");
  return data;
}

/** Reads the trailer section after the last chunk. */
export async function readTrailers(reader: ByteReader): Promise<Field[]> {
  const fields: Field[] = [];
  for (;;) {
    const line = (await reader.until("\r\n")).trimEnd();
    if (line === "") return fields;
    const colon = line.indexOf(":");
    fields.push([line.slice(0, colon), line.slice(colon + 1).trim()]);
  }
}

/** Reads a body whose length its head tells; `toEnd` says what a head without length means. */
export async function readBody(
  reader: ByteReader,
  head: MessageHead,
  toEnd: boolean,
): Promise<MessageBody> {
  if (head.header("transfer-encoding")?.toLowerCase() === "chunked") {
    const parts: Buffer[] = [];
    for (let part = await readChunk(reader); part.length > 0; part = await readChunk(reader)) {
      parts.push(part);
    }
    const trailers = await readTrailers(reader);
    return { bytes: Buffer.concat(parts), trailers, chunks: parts.map((part) => part.length) };
  }
  const length = head.header("content-length");
  if (length !== undefined) return { bytes: await reader.exactly(Number(length)), trailers: [] };
  return { bytes: toEnd ? await reader.toEnd() : Buffer.alloc(0), trailers: [] };
}
