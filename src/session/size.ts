/** About how much memory an event holds; exact figures do not exist in JavaScript. */
import type { SessionEvent } from "./event.ts";

const eventBytes = 400;
const nodeBytes = 24;
const maxNodes = 200_000;

/**
 * Counts strings, containers and buffers that the event refers to.
 *
 * Parsers make views of bodies that strangers sent: the walk keeps its own stack and stops at a bound, past which
 * the event counts as endless.
 */
export function approximateBytes(event: SessionEvent): number {
  let bytes = eventBytes;
  let nodes = 0;
  const pending: unknown[] = [event];
  while (pending.length > 0) {
    const value = pending.pop();
    nodes += 1;
    if (nodes > maxNodes) return Number.POSITIVE_INFINITY;
    bytes += nodeBytes;
    if (typeof value === "string") bytes += value.length;
    else if (ArrayBuffer.isView(value)) bytes += value.byteLength;
    else if (value instanceof Map) {
      for (const [key, item] of value) pending.push(key, item);
    } else if (Array.isArray(value)) {
      for (const item of value) pending.push(item);
    } else if (typeof value === "object" && value !== null) {
      // Keys are not counted: objects of one shape share them.
      for (const key in value) pending.push((value as Record<string, unknown>)[key]);
    }
  }
  return bytes;
}
