/** What of a body of JSON-RPC cannot be judged, and the parts of messages that refusals name. */
import type { RpcId, RpcMessage } from "../../http/json-rpc.ts";
import type { Denial } from "../../pipeline/plugin.ts";

/** A longer batch is refused: every entry of it costs a judgement. */
const maxBatch = 100;

/** Why one message is refused. */
export interface Refusal extends Denial {
  readonly reason: string;
  readonly details?: Readonly<Record<string, string>>;
  /** A person decides. */
  readonly isAsked?: true;
}

/** Undefined where every message is one. */
export function malformedReason(messages: readonly RpcMessage[]): string | undefined {
  if (messages.length > maxBatch) return `a batch has at most ${maxBatch} messages`;
  const invalid = messages.find((message) => message.kind === "invalid");
  return invalid === undefined ? undefined : `not a message of JSON-RPC 2.0: ${invalid.reason}`;
}

/** The id that somebody waits for, in a list that is empty where nobody does. */
export function idOf(message: RpcMessage): readonly RpcId[] {
  return message.kind === "request" || (message.kind === "invalid" && message.id !== null)
    ? [message.id]
    : [];
}

/** The tool, prompt or resource that a message names. */
export function nameOf(params: unknown): string | undefined {
  if (typeof params !== "object" || params === null) return undefined;
  const { name } = params as { readonly name?: unknown };
  return typeof name === "string" ? name : undefined;
}
