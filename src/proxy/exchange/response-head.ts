/** Turns the head of an upstream's response into the list that the client gets. */
import { HeaderList, isHopByHop, stripHopByHop } from "../../http/headers.ts";
import type { Denial } from "../../pipeline/decision.ts";

/** Fields that must not arrive late: framing, routing, authentication (RFC 9110 section 6.5.1). */
const forbiddenTrailers = new Set([
  "authorization",
  "content-encoding",
  "content-length",
  "content-range",
  "content-type",
  "cookie",
  "expect",
  "host",
  "max-forwards",
  "set-cookie",
  "www-authenticate",
]);

/** The end-to-end fields of a response, with our own Via. */
export function responseHeaders(status: number, fields: readonly string[], via: string): string[] {
  let headers = stripHopByHop(fields);
  // RFC 9110 section 8.6: such responses have no content, and a reader that believed a length would wait for it.
  if (status < 200 || status === 204) headers = withoutLength(headers);
  headers.push("via", via);
  return headers;
}

/** The value of Content-Length, or undefined when the body ends some other way. */
export function contentLengthOf(headers: readonly string[]): number | undefined {
  const value = fieldOf(headers, "content-length");
  return value === undefined ? undefined : Number(value);
}

/** The same fields, for a body that is sent in chunks. */
export function withoutLength(headers: string[]): string[] {
  const list = new HeaderList(headers);
  list.delete("content-length");
  return [...list.raw];
}

/** The coding of a body that is not in the clear. */
export function codingOf(headers: HeaderList): string | undefined {
  const coding = headers.get("content-encoding")?.trim().toLowerCase();
  return coding === undefined || coding === "" || coding === "identity" ? undefined : coding;
}

/** The denial for a response whose body is over the limit. */
export const responseTooLarge: Denial = {
  code: "upstream.response-too-large",
  message: "response body too large (limits.max_body)",
};

/** The denial for a response that cannot be decoded. */
export function unreadable(encoding: string): Denial {
  const message = `the answer's content encoding "${encoding.slice(0, 32)}" cannot be inspected`;
  return { code: "upstream.bad-response", message };
}

/** The trailer fields that may be forwarded. */
export function safeTrailers(trailers: readonly string[]): [string, string][] {
  const safe: [string, string][] = [];
  for (let at = 0; at < trailers.length; at += 2) {
    const name = trailers[at] ?? "";
    if (forbiddenTrailers.has(name.toLowerCase()) || isHopByHop(name)) continue;
    safe.push([name, trailers[at + 1] ?? ""]);
  }
  return safe;
}

function fieldOf(headers: readonly string[], name: string): string | undefined {
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const candidate = headers[i];
    if (
      candidate !== undefined &&
      candidate.length === name.length &&
      candidate.toLowerCase() === name
    ) {
      return headers[i + 1];
    }
  }
  return undefined;
}
