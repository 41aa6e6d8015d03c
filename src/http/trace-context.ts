/** The `traceparent` field (W3C Trace Context, section 3.2): read, written, and made where a conversation has none. */
import { randomBytes } from "node:crypto";
import { ownText } from "../bounded-map.ts";

/** What the field says; ids are lower-case hexadecimal digits. */
export interface TraceContext {
  readonly traceId: string;
  /** The span of whoever sent the message. */
  readonly spanId: string;
  readonly isSampled: boolean;
}

const pattern = /^([\da-f]{2})-([\da-f]{32})-([\da-f]{16})-([\da-f]{2})(?:-.*)?$/;

/** The content of a valid field; undefined for anything else, which section 4.3 says to ignore. */
export function parseTraceparent(field: string | undefined): TraceContext | undefined {
  const [, version, traceId, spanId, flags] = pattern.exec(field?.trim() ?? "") ?? [];
  if (version === undefined || version === "ff") return undefined;
  if (traceId === undefined || spanId === undefined || flags === undefined) return undefined;
  if (/^0+$/.test(traceId) || /^0+$/.test(spanId)) return undefined;
  // They are remembered for longer than the head that they are cut out of.
  const ids = { traceId: ownText(traceId), spanId: ownText(spanId) };
  return { ...ids, isSampled: (Number.parseInt(flags, 16) & 1) === 1 };
}

/** The trace id of a valid field. */
export function traceIdOf(traceparent: string | undefined): string | undefined {
  return parseTraceparent(traceparent)?.traceId;
}

/** The field of version 00. */
export function formatTraceparent({ traceId, spanId, isSampled }: TraceContext): string {
  return `00-${traceId}-${spanId}-${isSampled ? "01" : "00"}`;
}

/**
 * A field that starts a trace. It is marked as sampled, as a trace that the receiver would start by itself is by default:
 * a receiver that honours its parent would otherwise stop recording.
 */
export function startTrace(): { readonly traceId: string; readonly traceparent: string } {
  const traceId = randomBytes(16).toString("hex");
  const spanId = randomBytes(8).toString("hex");
  return { traceId, traceparent: formatTraceparent({ traceId, spanId, isSampled: true }) };
}
