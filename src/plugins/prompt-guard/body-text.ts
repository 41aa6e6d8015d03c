/** A body as the text that its reader makes of it. */
import type { TextKind } from "./scan.ts";

const markup = /^(?:text\/html|application\/xhtml\+xml)$/;
const charsetParameter = /;\s*charset\s*=\s*"?([^\s";]{1,40})/i;
const charsetElement = /<meta[^>]{1,200}charset\s{0,4}=\s{0,4}["']?([\w-]{1,40})/i;
const sniffedBytes = 1_024;

/** Whether a body is a page, by its type or, where it names none, by how it begins. */
export function kindOf(type: string | undefined, text: string): TextKind {
  if (type !== undefined) return markup.test(type) ? "html" : "text";
  return /^\s*<(?:!doctype\s+html|html|head|body)\b/i.test(text.slice(0, sniffedBytes))
    ? "html"
    : "text";
}

/** The text of a body; undefined where it is none. */
export function textOfBody(bytes: Buffer, contentType: string | undefined): string | undefined {
  const charset = charsetOf(bytes, contentType);
  // What names no type is a text where it has no zeros.
  if (contentType === undefined && charset === undefined && bytes.subarray(0, 8_192).includes(0)) {
    return undefined;
  }
  return decoded(bytes, charset ?? "utf-8");
}

function charsetOf(bytes: Buffer, contentType: string | undefined): string | undefined {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return "utf-16le";
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return "utf-16be";
  const said = charsetParameter.exec(contentType ?? "")?.[1];
  if (said !== undefined) return said;
  return charsetElement.exec(bytes.toString("latin1", 0, sniffedBytes))?.[1];
}

function decoded(bytes: Buffer, charset: string): string {
  try {
    return new TextDecoder(charset, { ignoreBOM: true }).decode(bytes);
  } catch {
    // A name that no reader knows.
    return bytes.toString("utf8");
  }
}
