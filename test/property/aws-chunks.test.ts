/** The framing aws-chunked: however a body is cut, what is stored is read, and nothing of the framing is left out. */
import * as fc from "fast-check";
import { expect, test } from "vitest";
import { HeaderList } from "../../src/http/headers.ts";
import { readAwsChunks } from "../../src/plugins/dlp/aws-chunks.ts";

const limits = { interruptAfterTimeLimit: 1200, numRuns: 2_000 };
const headers = new HeaderList(["Content-Encoding", "aws-chunked"]);
const chunk = fc.uint8Array({ minLength: 1, maxLength: 40 }).map((bytes) => Buffer.from(bytes));
const framing = fc.record({
  chunks: fc.array(chunk, { maxLength: 8 }),
  signature: fc.constantFrom("", `;chunk-signature=${"a".repeat(64)}`),
  trailer: fc.constantFrom("", "x-amz-checksum-crc32:AAAAAA==\r\n"),
});

interface Framing {
  readonly chunks: readonly Buffer[];
  readonly signature: string;
  readonly trailer: string;
}

const framed = ({ chunks, signature, trailer }: Framing): Buffer =>
  Buffer.concat([
    ...chunks.flatMap((data) => [
      Buffer.from(`${data.length.toString(16)}${signature}\r\n`),
      data,
      Buffer.from("\r\n"),
    ]),
    Buffer.from(`0${signature}\r\n${trailer}\r\n`),
  ]);

test("what was cut is read as one, and every other byte is a word of the framing", () => {
  fc.assert(
    fc.property(framing, (parts) => {
      const body = framed(parts);
      const read = readAwsChunks(headers, body);
      const data = Buffer.concat(parts.chunks);
      expect(read?.data).toEqual(data);
      const ends = 2 * parts.chunks.length;
      expect(read?.words.length).toBe(body.length - data.length - ends);
    }),
    limits,
  );
});

test("what breaks off is not read", () => {
  fc.assert(
    fc.property(framing, fc.nat(), (parts, at) => {
      const body = framed(parts);
      const cut = body.subarray(0, at % body.length);
      const read = readAwsChunks(headers, cut);
      // Behind the last chunk a trailer may end earlier.
      if (read !== undefined) expect(read.data).toEqual(Buffer.concat(parts.chunks));
    }),
    limits,
  );
});
