/** What a message of a WebSocket says to a policy: nothing but that it is one, or a GraphQL operation. */
import { foldedName } from "../../http/json-access.ts";
import { parseStrictJson } from "../../http/strict-json.ts";
import type { Message } from "../../pipeline/plugin.ts";
import type { MessageNeeds } from "../../policy/combined-policy.ts";
import type { GraphqlFacts } from "../../policy/request-facts.ts";
import { type BodyFacts, operationOf } from "./body.ts";

/** Types of graphql-transport-ws, and of the older graphql-ws, that carry an operation. */
const operationTypes: readonly unknown[] = ["subscribe", "start"];
/** Those that carry none. */
const plainTypes: readonly unknown[] = [
  "connection_init",
  "connection_terminate",
  "ping",
  "pong",
  "complete",
  "stop",
];
const members = ["type", "id", "payload"];

/** The facts of a message; undefined for one that runs no operation and may pass. */
export function messageFacts(
  { kind, data }: Message,
  needs: MessageNeeds | undefined,
): BodyFacts | undefined {
  if (needs?.areOperations !== true) return {};
  const bodyBytes = data.length;
  // The endpoint says so before anybody looks at what was read.
  if (bodyBytes > needs.bodyLimitBytes) return { bodyBytes, graphql: { operations: [] } };
  if (kind === "binary") return { bodyBytes, graphql: unreadable("the message is not a text") };
  const graphql = operationsOf(data);
  return graphql === undefined ? undefined : { bodyBytes, graphql };
}

function operationsOf(data: Buffer): GraphqlFacts | undefined {
  const parsed = parseStrictJson(data);
  if (parsed.kind === "invalid") return unreadable(`the message is ${parsed.reason}`);
  const { value } = parsed;
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return unreadable("the message is not an object");
  }
  const message: ReadonlyMap<string, unknown> = new Map(Object.entries(value));
  for (const name of message.keys()) {
    if (members.includes(foldedName(name)) && !members.includes(name)) {
      return unreadable("a member differs from a member of the protocol only by case");
    }
  }
  const type = message.get("type");
  if (plainTypes.includes(type)) return undefined;
  if (!operationTypes.includes(type)) return unreadable("the type of the message is not known");
  const id = message.get("id");
  // The older protocol also had clients that count.
  if ((typeof id !== "string" || id === "") && typeof id !== "number") {
    return unreadable("the operation has no id");
  }
  const operation = operationOf(message.get("payload"));
  return typeof operation === "string" ? unreadable(operation) : { operations: [operation] };
}

function unreadable(error: string): GraphqlFacts {
  return { operations: [], error };
}
