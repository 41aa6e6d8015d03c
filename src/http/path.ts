/**
 * Request paths as policy and bypass lists judge them: one canonical reading, and word of every other reading.
 *
 * The canonical path is for judging only. What is sent stays byte for byte what came.
 */

/** A path as it is judged. */
export interface CanonicalPath {
  /** Without query, dot segments and empty segments; only characters that need it are percent-encoded. */
  readonly path: string;
  /** The path of a server that cuts `;parameters` off each segment, when it differs: judge this reading too. */
  readonly withoutParameters?: string;
  /** Why two servers could read the path as two different resources; such a path should be refused. */
  readonly ambiguous?: string;
}

/** Reads the path of a request target (the query is ignored). Never throws. */
export function canonicalPath(rawPath: string): CanonicalPath {
  const query = rawPath.indexOf("?");
  const raw = query === -1 ? rawPath : rawPath.slice(0, query);
  const isPlain = plainPath.test(raw);
  const decoded = isPlain ? { path: raw, ambiguous: undefined } : decode(raw);
  const parts = decoded.path.split("/");
  if (isPlain && isClean(parts)) {
    return { path: raw };
  }
  const resolved = resolve(parts);
  let ambiguous = decoded.ambiguous ?? resolved.ambiguous;
  let withoutParameters: string | undefined;
  if (decoded.path.includes(";") || decoded.path.includes("%3B")) {
    const cut = parts.map((part) => part.replace(/(?:;|%3B).*$/, ""));
    if (cut.some((part, at) => isDotSegment(part) && part !== parts[at])) {
      ambiguous ??= "a dot segment has parameters";
    }
    const alternative = resolve(cut).path;
    withoutParameters = alternative === resolved.path ? undefined : alternative;
  }
  return {
    path: resolved.path,
    ...(withoutParameters !== undefined && { withoutParameters }),
    ...(ambiguous !== undefined && { ambiguous }),
  };
}

/** pchar of RFC 3986 section 3.3 without "%" and ";", with an absolute start. */
const plainPath = /^\/[A-Za-z0-9\-._~!$&'()*+,=:@/]*$/;

/** What a canonical path never encodes. */
const stands = /^[A-Za-z0-9\-._~!$&'()*+,=:@;/]$/;

function isDotSegment(part: string): boolean {
  return part === "." || part === "..";
}

function isClean(parts: readonly string[]): boolean {
  for (let at = 1; at < parts.length; at += 1) {
    const part = parts[at] ?? "";
    if (isDotSegment(part) || (part === "" && at < parts.length - 1)) {
      return false;
    }
  }
  return parts[0] === "";
}

interface Reading {
  readonly path: string;
  readonly ambiguous: string | undefined;
}

/** Decodes what may stand for itself in a path, spells the rest as %HH, and names what is read differently elsewhere. */
function decode(raw: string): Reading {
  let ambiguous =
    raw.startsWith("/") || raw === "" ? undefined : "the path does not begin with a slash";
  const note = (reason: string): void => {
    ambiguous ??= reason;
  };
  const bytes: number[] = [];
  // A character between two encoded bytes keeps them from completing each other.
  const separate = (): void => {
    if (bytes.length > 0) {
      bytes.push(0x20);
    }
  };
  let path = raw.startsWith("/") ? "" : "/";
  for (let at = 0; at < raw.length; at += 1) {
    const character = raw.charAt(at);
    if (character !== "%") {
      const reason = rawProblem(raw.charCodeAt(at));
      if (reason !== undefined) {
        note(reason);
      }
      path += stands.test(character) ? character : encodeURIComponent(character.toWellFormed());
      separate();
      continue;
    }
    const hex = raw.slice(at + 1, at + 3);
    if (!/^[0-9a-fA-F]{2}$/.test(hex)) {
      note("a percent sign is not followed by two hexadecimal digits");
      path += "%25";
      continue;
    }
    const value = Number.parseInt(hex, 16);
    const meant = String.fromCharCode(value);
    const reason = encodedProblem(value, raw.slice(at + 3, at + 5));
    if (reason !== undefined) {
      note(reason);
    }
    if (value >= 0x80) {
      bytes.push(value);
    } else {
      separate();
    }
    path += meant !== "/" && meant !== ";" && stands.test(meant) ? meant : `%${hex.toUpperCase()}`;
    at += 2;
  }
  if (bytes.length > 0 && !isUtf8(bytes)) {
    note("percent-encoded bytes are not UTF-8");
  }
  if (/(?:^|\/)(?:%2e|\.%2e|%2e\.|%2e%2e)(?:\/|$)/i.test(raw)) {
    note("a dot segment is percent-encoded");
  }
  return { path, ambiguous };
}

function rawProblem(code: number): string | undefined {
  if (code === 0x5c) {
    return "the path has a backslash";
  }
  if (code === 0x23) {
    return "the path has a fragment";
  }
  return code <= 0x20 || code >= 0x7f
    ? "the path has a space, a control character or a byte outside ASCII"
    : undefined;
}

function encodedProblem(value: number, following: string): string | undefined {
  if (value === 0x2f) {
    return "a slash is percent-encoded";
  }
  if (value === 0x5c) {
    return "a backslash is percent-encoded";
  }
  if (value < 0x20 || value === 0x7f) {
    return "a control character is percent-encoded";
  }
  // %252e is "%2e" to one reader and "." to one that decodes twice.
  return value === 0x25 && /^(?:2e|2f|5c|25|3b|00)$/i.test(following)
    ? "a dot, slash or the like is percent-encoded twice"
    : undefined;
}

function isUtf8(bytes: readonly number[]): boolean {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(bytes));
    return true;
  } catch {
    // The only fault that decode() has is the answer to the question.
    return false;
  }
}

/** Removes dot segments (RFC 3986 section 5.2.4) and empty segments, in whichever order gives the same path. */
function resolve(parts: readonly string[]): Reading {
  const merged: string[] = [];
  const strict: string[] = [];
  let ambiguous: string | undefined;
  for (const part of parts.slice(1)) {
    if (part === ".") {
      continue;
    }
    if (part === "..") {
      if (merged.pop() === undefined) {
        ambiguous ??= "the path climbs above its root";
      }
      strict.pop();
      continue;
    }
    strict.push(part);
    if (part !== "") {
      merged.push(part);
    }
  }
  const last = parts.at(-1) ?? "";
  const tail = merged.length > 0 && (last === "" || isDotSegment(last)) ? "/" : "";
  const path = `/${merged.join("/")}${tail}`;
  if (strict.filter((part) => part !== "").join("/") !== merged.join("/")) {
    ambiguous ??= "an empty segment is followed by a dot segment";
  }
  return { path, ambiguous };
}
