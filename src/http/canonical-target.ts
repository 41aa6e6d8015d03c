/**
 * The canonical form of a request target, as the OpenShell file format defines it: the path that rules are asked about
 * is the path that is sent, so that no server can read another one.
 */

/** Why a target has no canonical form; a closed set. */
export type TargetFault =
  | "control-byte"
  | "non-ascii"
  | "fragment"
  | "malformed-target"
  | "path-too-long"
  | "invalid-percent-encoding"
  | "encoded-slash"
  | "traversal-above-root"
  | "residual-dot-segment";

/** A target, or the reason why it is refused. */
export type CanonicalTarget =
  | {
      readonly path: string;
      /** With its question mark, byte for byte; empty when there is none. */
      readonly query: string;
      /** Set where servers are known to read such a path in more than one way although it is canonical. */
      readonly doubtful?: string;
    }
  | { readonly fault: TargetFault };

/** How targets are read. */
export interface CanonicalOptions {
  /** `%2F` stays within its segment; else it is refused. */
  readonly allowEncodedSlash?: boolean;
}

const maxPathBytes = 4096;
/** pchar of RFC 3986 section 3.3 as the format writes it; everything else is `%HH`. */
const stands = /^[A-Za-z0-9\-._~!$&'()*+,=:@]$/;
const plain = /^\/[A-Za-z0-9\-._~!$&'()*+,=:@/]*$/;
/** Stands for an encoded slash between decoding and the end; no target holds it, as control bytes are refused. */
const marker = "\0";

/** Reads a target in origin-form or absolute-form. Never throws. */
export function canonicalTarget(target: string, options: CanonicalOptions = {}): CanonicalTarget {
  const foreign = foreignByte(target);
  if (foreign !== undefined) return { fault: foreign };
  if (target.includes("#")) return { fault: "fragment" };
  const mark = target.indexOf("?");
  const query = mark === -1 ? "" : target.slice(mark);
  const raw = withoutAuthority(mark === -1 ? target : target.slice(0, mark)) || "/";
  if (!raw.startsWith("/")) return { fault: "malformed-target" };
  if (raw.length > maxPathBytes) return { fault: "path-too-long" };
  if (plain.test(raw) && !/\/(?:\/|\.{1,2}(?:\/|$))/.test(raw)) return { path: raw, query };
  const decoded = decode(raw, options.allowEncodedSlash === true);
  if (typeof decoded !== "string") return decoded;
  const resolved = resolve(decoded.split("/").slice(1));
  if (typeof resolved !== "string") return resolved;
  const doubtful = doubtOf(raw);
  return { path: encode(resolved), query, ...(doubtful === undefined ? {} : { doubtful }) };
}

function foreignByte(target: string): TargetFault | undefined {
  for (let at = 0; at < target.length; at += 1) {
    const code = target.charCodeAt(at);
    if (code < 0x20 || code === 0x7f) return "control-byte";
    if (code >= 0x80) return "non-ascii";
  }
  return undefined;
}

function withoutAuthority(target: string): string {
  const authority = /^[A-Za-z][A-Za-z0-9+.-]*:\/\/[^/]*/.exec(target);
  return authority === null ? target : target.slice(authority[0].length);
}

/** Decodes once, one character for each byte. */
function decode(raw: string, allowEncodedSlash: boolean): string | { readonly fault: TargetFault } {
  let text = "";
  for (let at = 0; at < raw.length; at += 1) {
    const character = raw.charAt(at);
    if (character !== "%") {
      text += character;
      continue;
    }
    const digits = raw.slice(at + 1, at + 3);
    if (!/^[0-9a-fA-F]{2}$/.test(digits)) return { fault: "invalid-percent-encoding" };
    const byte = Number.parseInt(digits, 16);
    at += 2;
    if (byte === 0x2f) {
      if (!allowEncodedSlash) return { fault: "encoded-slash" };
      text += marker;
    } else if (byte < 0x20 || byte === 0x7f) return { fault: "control-byte" };
    else text += String.fromCharCode(byte);
  }
  return text;
}

/** Parameters off, dot segments resolved, empty segments dropped, a slash at the end kept. */
function resolve(segments: readonly string[]): string | { readonly fault: TargetFault } {
  const done: string[] = [];
  let isFolder = false;
  for (const [index, segment] of segments.entries()) {
    const name = segment.split(";", 1)[0] ?? "";
    isFolder = index === segments.length - 1 && (name === "" || name === "." || name === "..");
    if (name === "..") {
      if (done.pop() === undefined) return { fault: "traversal-above-root" };
    } else if (name !== "" && name !== ".") done.push(name);
  }
  if (done.some((name) => name.split(marker).some((part) => part === "." || part === "..")))
    return { fault: "residual-dot-segment" };
  return `/${done.join("/")}${isFolder && done.length > 0 ? "/" : ""}`;
}

function encode(path: string): string {
  let text = "";
  for (const character of path) {
    if (character === "/" || stands.test(character)) text += character;
    else if (character === marker) text += "%2F";
    else text += `%${character.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return text;
}

/** What remains readable in two ways: a backslash (a slash to some), and what decodes to a separator the second time. */
function doubtOf(raw: string): string | undefined {
  if (/\\|%5c/i.test(raw)) return "the path has a backslash";
  return /%25(?:2e|2f|5c|25|3b|00)/i.test(raw)
    ? "a dot, slash or the like is percent-encoded twice"
    : undefined;
}
