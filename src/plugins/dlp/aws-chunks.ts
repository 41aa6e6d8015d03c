/**
 * The framing aws-chunked, in which object stores take uploads: what is stored is the chunks behind each other, so that a
 * text is found in them however it is cut.
 */
import { contentCodings } from "../../http/body.ts";
import type { HeaderList } from "../../http/headers.ts";
import { isAwsChunked } from "../../http/signed-fields.ts";

/** What the chunks hold, and the words of the framing: signatures and trailers. */
export interface AwsChunks {
  readonly data: Buffer;
  readonly words: Buffer;
}

const maxLine = 256;
const maxTrailerBytes = 16_384;
const crlf = "\r\n";
const sizeLine = /^([0-9a-fA-F]{1,8})(?:;chunk-signature=[0-9a-f]{1,144}\**)?$/;

/** Undefined where the body is not framed so, or cannot be read as it says. */
export function readAwsChunks(headers: HeaderList, body: Buffer): AwsChunks | undefined {
  const inside = contentCodings(headers.get("content-encoding")).filter(
    (coding) => coding !== "aws-chunked",
  );
  // What is looked through is looked through below gzip as well.
  const isReadable = inside.length === 0 || inside.join() === "gzip";
  return isAwsChunked(headers) && isReadable ? chunksOf(body) : undefined;
}

function chunksOf(body: Buffer): AwsChunks | undefined {
  const data: Buffer[] = [];
  const words: Buffer[] = [];
  let at = 0;
  for (;;) {
    const end = body.indexOf(crlf, at);
    if (end === -1 || end - at > maxLine) return undefined;
    const size = sizeLine.exec(body.toString("latin1", at, end))?.[1];
    if (size === undefined) return undefined;
    words.push(body.subarray(at, end + 2));
    at = end + 2;
    const length = Number.parseInt(size, 16);
    if (length === 0) break;
    const next = at + length;
    if (body.toString("latin1", next, next + 2) !== crlf) return undefined;
    data.push(body.subarray(at, next));
    at = next + 2;
  }
  const trailer = body.subarray(at);
  if (trailer.length > maxTrailerBytes || !trailer.toString("latin1").endsWith(crlf))
    return undefined;
  words.push(trailer);
  return { data: Buffer.concat(data), words: Buffer.concat(words) };
}
