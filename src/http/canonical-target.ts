/** A request target as the OpenShell file format reads it, or what is wrong with it. */
import { readPath, type ReadPath } from "./path.ts";

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

/** A target as rules are asked about it, or the reason why it is refused. */
export type CanonicalTarget =
  | (Pick<ReadPath, "readings" | "remote" | "ambiguous"> & {
      readonly kind: "target";
      /** The canonical path of the format: parameters cut off, dot segments and empty segments resolved. */
      readonly path: string;
      /** With its question mark, byte for byte; empty when there is none. */
      readonly query: string;
    })
  | { readonly kind: "fault"; readonly fault: TargetFault };

/** How targets are read. */
export interface CanonicalOptions {
  /** `%2F` stays within its segment; else it is refused. */
  readonly allowEncodedSlash?: boolean;
}

const maxPathBytes = 4096;
/** Reads a target in origin-form or absolute-form. Never throws. */
export function canonicalTarget(target: string, options: CanonicalOptions = {}): CanonicalTarget {
  const foreign = foreignByte(target);
  if (foreign !== undefined) return { kind: "fault", fault: foreign };
  if (target.includes("#")) return { kind: "fault", fault: "fragment" };
  const mark = target.indexOf("?");
  const query = mark === -1 ? "" : target.slice(mark);
  const raw = withoutAuthority(mark === -1 ? target : target.slice(0, mark)) || "/";
  if (!raw.startsWith("/")) return { kind: "fault", fault: "malformed-target" };
  if (raw.length > maxPathBytes) return { kind: "fault", fault: "path-too-long" };
  const encoded = raw.includes("%")
    ? encodedFault(raw, options.allowEncodedSlash === true)
    : undefined;
  if (encoded !== undefined) return { kind: "fault", fault: encoded };
  const { plain: path, readings, remote, ambiguous, climbs } = readPath(raw, { slashIsData: true });
  if (climbs === true) return { kind: "fault", fault: "traversal-above-root" };
  if (path.includes(".") && path.split(/\/|%2F/).some((part) => part === "." || part === ".."))
    return { kind: "fault", fault: "residual-dot-segment" };
  return { kind: "target", path, query, readings, remote, ambiguous };
}

function foreignByte(target: string): TargetFault | undefined {
  if (/^[\x20-\x7e]*$/.test(target)) return undefined;
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

/** What nobody should have to decode. */
function encodedFault(raw: string, allowEncodedSlash: boolean): TargetFault | undefined {
  for (const [, after = ""] of raw.matchAll(/%(.{0,2})/g)) {
    if (!/^[0-9a-fA-F]{2}$/.test(after)) return "invalid-percent-encoding";
    const byte = Number.parseInt(after, 16);
    if (byte === 0x2f && !allowEncodedSlash) return "encoded-slash";
    if (byte < 0x20 || byte === 0x7f) return "control-byte";
  }
  return undefined;
}
