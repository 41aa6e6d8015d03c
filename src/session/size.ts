/** About how much memory an event holds; exact figures do not exist in JavaScript. */
import type { Invocation } from "../pipeline/decision.ts";
import type { SessionEvent } from "./event.ts";

const eventBytes = 400;
const invocationBytes = 160;
const nodeBytes = 24;
const maxNodes = 200_000;

/**
 * A fixed sum for what every event has, and a walk over what parsers made of bodies that strangers sent.
 *
 * The walk keeps its own stack and stops at a bound, past which the event counts as endless.
 */
export function approximateBytes(event: SessionEvent): number {
  let bytes = eventBytes + event.host.length + (event.httpPath?.length ?? 0);
  const { invocations } = event;
  if (invocations !== undefined) {
    bytes += sizeOfSteps(invocations.inbound) + sizeOfSteps(invocations.outbound);
  }
  if (event.mcp !== undefined) bytes += sizeOf(event.mcp);
  if (event.a2a !== undefined) bytes += sizeOf(event.a2a);
  if (event.inference !== undefined) bytes += sizeOf(event.inference);
  if (event.plugins !== undefined) bytes += sizeOf(event.plugins);
  if (event.identity !== undefined) bytes += sizeOf(event.identity);
  if (event.error !== undefined) bytes += event.error.message.length;
  return bytes;
}

function sizeOfSteps(steps: readonly Invocation[] | undefined): number {
  let bytes = 0;
  for (const { path, details } of steps ?? []) {
    bytes += invocationBytes + (path?.length ?? 0);
    for (const key in details) {
      const value = details[key];
      bytes += nodeBytes + (typeof value === "string" ? value.length : 0);
    }
  }
  return bytes;
}

function sizeOf(view: unknown): number {
  let bytes = 0;
  let nodes = 0;
  const pending: unknown[] = [view];
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
      for (const key in value) {
        // Objects of one shape share their keys, and every object of a stranger may have a shape of its own.
        bytes += key.length;
        pending.push((value as Record<string, unknown>)[key]);
      }
    }
  }
  return bytes;
}
