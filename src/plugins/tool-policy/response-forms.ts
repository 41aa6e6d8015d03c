/** In which form a server responds. */
import { classifyRpc, messagesOf } from "../../http/json-rpc.ts";
import { type Decision, replaceFrame, type RequestContext } from "../../pipeline/plugin.ts";
import type { ResponseScope } from "./response.ts";

/** Some readers end a line of an event at characters that JSON allows in strings: what follows would be a message. */
export function inOneLine(data: Buffer): Decision | undefined {
  const text = data.toString("utf8");
  const escaped = text.replaceAll(/[\x85\u2028\u2029]/g, (one) => {
    return `\\u${one.charCodeAt(0).toString(16).padStart(4, "0")}`;
  });
  return escaped === text ? undefined : replaceFrame("line_ends_escaped", Buffer.from(escaped));
}

/**
 * Whether a response says no more than that the message has arrived: nothing waits for one, or it comes on the stream of
 * the older transport, which says 202 and any words.
 */
export function isAcknowledgement(
  { method }: RequestContext,
  scope: ResponseScope,
  status: number,
): boolean {
  return status === 202 || (method !== "GET" && scope.rpc.ids.length === 0);
}

/** Whether the response is a stream of events. */
export function isEventStream({ response }: RequestContext): boolean {
  return /^\s*text\/event-stream/i.test(response?.headers.get("content-type") ?? "");
}

/** Whether a value is a message of JSON-RPC, or a batch with one. */
export function isRpc(value: unknown): boolean {
  return messagesOf(classifyRpc(value)).some(({ kind }) => kind !== "invalid");
}
