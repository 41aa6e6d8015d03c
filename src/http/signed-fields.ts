/**
 * Which fields of a request its signature covers: whoever changes one of them breaks it.
 *
 * What is read here is only what a signature says of itself. It keeps a field as it came, and decides nothing else.
 */
import type { HeaderList } from "./headers.ts";

/** `SignedHeaders=host;x-amz-date`: AWS Signature Version 4 and those made after it, in Authorization or the query. */
const listed = /(?:^|[\s,&?]|x-[a-z]+-)signedheaders=([^\s,&]+)/gi;
/** `headers="(request-target) host date"`: HTTP Signatures before they were a standard. */
const spaced = /(?:^|[\s,])headers="([^"]*)"/gi;
/** RFC 9421 section 4.1: inner lists of quoted component names. */
const innerList = /\(([^()]*)\)/g;
const quoted = /"([^"\\]*)"/g;

/** Whether the signature of a request covers the field; `target` is its path and query. */
export function isSignedField(headers: HeaderList, target: string, name: string): boolean {
  const field = name.toLowerCase();
  const query = target.indexOf("?");
  // A bearer token says nothing of fields, and is long.
  const values = headers.getAll("authorization").filter((value) => !/^bearer /i.test(value));
  if (query !== -1) values.push(target.slice(query));
  for (const value of values) {
    for (const [, list = ""] of value.matchAll(listed))
      if (decoded(list).toLowerCase().split(";").includes(field)) return true;
  }
  for (const value of [...values, ...headers.getAll("signature")]) {
    for (const [, list = ""] of value.matchAll(spaced))
      if (list.toLowerCase().split(" ").includes(field)) return true;
  }
  for (const value of headers.getAll("signature-input")) {
    for (const [, list = ""] of value.matchAll(innerList))
      for (const [, component = ""] of list.matchAll(quoted))
        if (component.toLowerCase() === field) return true;
  }
  return false;
}

function decoded(list: string): string {
  return list.replaceAll(/%3b/gi, ";");
}

/** Fields that hold a digest of the body. */
export const digestFields: readonly string[] = [
  "content-md5",
  "digest",
  "content-digest",
  "repr-digest",
];

/**
 * Whether the body is in the framing aws-chunked. Servers go by the field of the payload's hash, and clients may leave the
 * coding out.
 */
export function isAwsChunked(headers: HeaderList): boolean {
  if (headers.getAll("x-amz-content-sha256").some((value) => /^\s*STREAMING-/i.test(value)))
    return true;
  return /(?:^|,)\s*aws-chunked\s*(?:,|$)/i.test(headers.get("content-encoding") ?? "");
}

/**
 * Whether the body is covered by a signature or a digest of the request: another body would be refused. `isResigned`: the
 * signature is made anew over what leaves.
 */
export function hasSignedBody(headers: HeaderList, target: string, isResigned = false): boolean {
  // The framing has the lengths and signatures of its chunks.
  if (digestFields.some((name) => headers.has(name)) || isAwsChunked(headers)) return true;
  if (isResigned) return [...headers].some(([name]) => /^x-amz-checksum-/i.test(name));
  const query = target.indexOf("?");
  const isPresigned = query !== -1 && /[?&]x-[a-z]+-signature=/i.test(target.slice(query));
  const isSigned = headers
    .getAll("authorization")
    .some((value) => /^\s*[A-Z0-9]+-HMAC-SHA256|^\s*AWS4-/i.test(value));
  // Version 4 hashes the body in any case, unless it says that it does not.
  return (isSigned || isPresigned) && headers.get("x-amz-content-sha256") !== "UNSIGNED-PAYLOAD";
}

/** Why the body of a response cannot be another one. */
export function fixedBy(status: number, headers: HeaderList): string | undefined {
  if (status === 206) return "it is a part of a document (206)";
  const isSigned = digestFields.some((name) => isSignedField(headers, "", name));
  return isSigned ? "its digest is signed (RFC 9421)" : undefined;
}

/** What says something of the bytes that came says nothing of those that go on. */
export function forgetDigests(headers: HeaderList | undefined): void {
  for (const name of [...digestFields, "etag", "accept-ranges"]) headers?.delete(name);
}
