/**
 * Request paths as policy and bypass lists judge them: every path that some server reads in a spelling.
 *
 * For judging only. What is sent stays byte for byte what came.
 */

/** A path as it is judged. */
export interface ReadPath {
  /**
   * Every path that some server may read, as it is spelt first; characters that need no percent-encoding have none
   * (RFC 3986 section 6.2.2.2), and neither have those that stand for themselves within a segment. The others are of
   * servers that cut `;parameters` off, merge slashes, or take what follows two slashes for a host (section 5.2).
   */
  readonly readings: readonly [string, ...string[]];
  /** Readings of servers that decode before they cut parameters off: `%3B` is data (section 2.2), but not to them. */
  readonly remote: readonly string[];
  /** The shortest reading: parameters cut off, dot segments resolved, empty segments dropped. */
  readonly plain: string;
  /** The shortest reading would leave the root. */
  readonly climbs?: true;
  /** Why two servers could read the path as two different resources; such a path should be refused. */
  readonly ambiguous?: string | undefined;
}

/** How a path is read. */
export interface ReadPathOptions {
  /** `%2F` is part of its segment and no reason to doubt. */
  readonly slashIsData?: boolean;
}

/** Reads the path of a request target (the query is ignored). Never throws. */
export function readPath(rawPath: string, options: ReadPathOptions = {}): ReadPath {
  const query = rawPath.indexOf("?");
  const raw = query === -1 ? rawPath : rawPath.slice(0, query);
  if (plainPath.test(raw) && !segmentToResolve.test(raw)) {
    return { readings: [raw], remote: [], plain: raw };
  }
  const decoded = decode(raw);
  const literal = decoded.path;
  const resolved = resolve(literal.split("/"));
  const others = new Set<string>();
  for (const base of [literal, afterAuthority(literal)]) {
    for (const reading of [base, withoutParameters(base, /;.*$/)]) {
      others.add(reading).add(resolve(reading.split("/")).path);
    }
  }
  const shortest = resolve(withoutParameters(literal, /;.*$/).split("/"));
  const remote = resolve(withoutParameters(literal, /(?:;|%3B).*$/).split("/")).path;
  const ambiguous =
    decoded.ambiguous ??
    (options.slashIsData === true ? slashDoubt(literal) : decoded.slash) ??
    resolved.ambiguous ??
    dotDoubt(literal);
  if (ambiguous !== undefined) others.add(resolve(decodedThrough(raw).split("/")).path);
  others.delete(literal);
  return {
    readings: [literal, ...others],
    remote: others.has(remote) || remote === literal ? [] : [remote],
    plain: shortest.path,
    ...(shortest.ambiguous === climbing && { climbs: true }),
    ...(ambiguous !== undefined && { ambiguous }),
  };
}

/** pchar of RFC 3986 section 3.3 without "%" and ";", with an absolute start. */
const plainPath = /^\/[A-Za-z0-9\-._~!$&'()*+,=:@/]*$/;

/** A dot segment, or an empty one that is not the last. */
const segmentToResolve = /\/\.{0,2}\/|\/\.{1,2}$/;

const climbing = "the path climbs above its root";

/** What a canonical path never encodes. */
const stands = /^[A-Za-z0-9\-._~!$&'()*+,=:@;/]$/;

function isDotSegment(part: string): boolean {
  return part === "." || part === "..";
}

/** A server that resolves the target as a reference takes what follows two slashes for a host. */
function afterAuthority(path: string): string {
  const match = /^\/{2,}[^/]*(?<rest>\/.*)?$/.exec(path);
  return match === null ? path : (match.groups?.["rest"] ?? "/");
}

function withoutParameters(path: string, parameters: RegExp): string {
  if (!/;|%3B/.test(path)) return path;
  return path
    .split("/")
    .map((part) => part.replace(parameters, ""))
    .join("/");
}

function dotDoubt(path: string): string | undefined {
  const parts = path.split("/");
  const cut = withoutParameters(path, /(?:;|%3B).*$/).split("/");
  if (cut.some((part, at) => isDotSegment(part) && part !== parts[at])) {
    return "a dot segment has parameters";
  }
  return parts.some(isDotSegment) ? "the path has a dot segment" : undefined;
}

/** To a server that decodes the slash, the dots beside it are a segment. */
function slashDoubt(path: string): string | undefined {
  if (!path.includes("%2F")) return undefined;
  const parts = path.split(/\/|%2F/);
  return parts.some((part) => /^\.{1,2}(?:;|%3B|$)/.test(part))
    ? "a dot segment stands beside an encoded slash"
    : undefined;
}

/** As the most liberal server reads a path: decoded until nothing is left to decode, backslashes for slashes. */
function decodedThrough(raw: string): string {
  let text = raw;
  for (let round = 0; round < 4; round += 1) {
    text = text.replaceAll(/%([2-7][0-9a-f])/gi, (_code, hex: string) =>
      String.fromCharCode(Number.parseInt(hex, 16)),
    );
  }
  const path = text.replaceAll(/[\\/]+/g, "/");
  return withoutParameters(decode(path).path, /;.*$/);
}

interface Reading {
  readonly path: string;
  readonly ambiguous: string | undefined;
}

interface Decoded extends Reading {
  /** Said of an encoded slash. */
  readonly slash: string | undefined;
}

/** Decodes what may stand for itself in a path, spells the rest as %HH, and names what is read differently elsewhere. */
function decode(raw: string): Decoded {
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
  const slash = /%2f/i.test(raw) ? "a slash is percent-encoded" : undefined;
  return { path, ambiguous, slash };
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
    // A fatal decoder throws only for bytes that are not UTF-8.
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
        ambiguous = climbing;
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
