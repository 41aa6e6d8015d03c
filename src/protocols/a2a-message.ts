/** What a message of the Agent2Agent protocol says, as the record shows it: 0.3 and 1.0, JSON-RPC and REST. */
import {
  bounded,
  truncated,
  isObject,
  type JsonObject,
  objectOf,
  objectsOf,
  textOf,
} from "../http/json-access.ts";
import { factKey } from "../pipeline/facts.ts";
import type { RpcId, RpcMessage } from "../http/json-rpc.ts";

/** A part of a message: `text`, `file` (its address or bytes) or `data` (JSON). */
export interface A2aPart {
  readonly kind: string;
  readonly content?: string;
}

/** The view of a message under `a2a`: the request's half, and the response's half once it is known. */
export interface A2aView {
  /** In the names of 0.3, also where the message uses those of 1.0. */
  method?: string;
  rpcId?: string | number;
  /** As of {@link isA2aAction}. */
  isAction?: true;
  /** The conversation (`contextId`): the request's, or the one that the response assigned. */
  sessionId?: string;
  messageId?: string;
  taskId?: string;
  /** `user` or `agent`. */
  role?: string;
  parts?: readonly A2aPart[];
  /** Where the agent was asked to send updates, without query and credentials. */
  pushUrl?: string;
  /** In the names of 0.3: `completed`, `failed`, `input-required` and so on. */
  finalStatus?: string;
  /** The text that the agent gave back. */
  artifact?: string;
  errorMessage?: string;
  /** Every message of a batch, in order; the members above are then those of the first that somebody said. */
  batch?: readonly A2aView[];
}

/** Where a2a-parser leaves the view. */
export const a2aFact = factKey<A2aView>("a2a");

/** Longest text that is kept of a part or an artifact, as in the Go program. */
export const maxTextChars = 64 * 1_024;
const maxParts = 128;
const maxIdChars = 256;

/** Methods of 1.0 by their names of 0.3. */
const renamed: ReadonlyMap<string, string> = new Map([
  ["SendMessage", "message/send"],
  ["SendStreamingMessage", "message/stream"],
  ["GetTask", "tasks/get"],
  ["ListTasks", "tasks/list"],
  ["CancelTask", "tasks/cancel"],
  ["SubscribeToTask", "tasks/resubscribe"],
  ["CreateTaskPushNotificationConfig", "tasks/pushNotificationConfig/set"],
  ["GetTaskPushNotificationConfig", "tasks/pushNotificationConfig/get"],
  ["ListTaskPushNotificationConfigs", "tasks/pushNotificationConfig/list"],
  ["DeleteTaskPushNotificationConfig", "tasks/pushNotificationConfig/delete"],
  ["GetExtendedAgentCard", "agent/getAuthenticatedExtendedCard"],
]);

/** The method in the names of 0.3; undefined where it is none of the protocol. */
export function a2aMethod(method: string): string | undefined {
  return /^(?:message|tasks|agent)\//.test(method) ? method : renamed.get(method);
}

/** Whether a method brings words of somebody to an agent, in contrast to asking about a task. */
export function isA2aAction(method: string | undefined): boolean {
  return method === "message/send" || method === "message/stream";
}

/** The view of a call; undefined where the message is none of the protocol. */
export function callView(message: RpcMessage): A2aView | undefined {
  if (message.kind !== "request" && message.kind !== "notification") return undefined;
  const method = a2aMethod(message.method);
  if (method === undefined) return undefined;
  const id = message.kind === "request" ? idOf(message.id) : {};
  return { method, ...id, ...paramsView(method, objectOf(message.params)) };
}

function idOf(id: RpcId): { readonly rpcId?: string | number } {
  return id === null ? {} : { rpcId: id };
}

/** What the parameters of a method say; the same over REST, where they are the body. */
export function paramsView(method: string, params: JsonObject): A2aView {
  const message = objectOf(params["message"]);
  const sessionId =
    shortText(params["contextId"]) ??
    shortText(params["sessionId"]) ??
    shortText(message["contextId"]);
  const isAboutTask = method.startsWith("tasks/");
  const taskId =
    shortText(params["taskId"]) ??
    shortText(message["taskId"]) ??
    (isAboutTask ? shortText(params["id"]) : undefined);
  const messageId = shortText(message["messageId"]);
  const role = shortText(message["role"]);
  const parts = partsOf(message["parts"]);
  const pushUrl = pushUrlOf(params);
  return {
    ...(isA2aAction(method) ? { isAction: true } : {}),
    ...(sessionId === undefined ? {} : { sessionId }),
    ...(messageId === undefined ? {} : { messageId }),
    ...(taskId === undefined ? {} : { taskId }),
    ...(role === undefined ? {} : { role: role.replace(/^ROLE_/, "").toLowerCase() }),
    ...(parts.length === 0 ? {} : { parts }),
    ...(pushUrl === undefined ? {} : { pushUrl }),
  };
}

/** An id or a word; longer ones are not ids. */
export function shortText(value: unknown): string | undefined {
  const text = textOf(value);
  return text === undefined || text.length > maxIdChars ? undefined : text;
}

/** The parts of a message or an artifact, within the bounds. */
export function partsOf(value: unknown): readonly A2aPart[] {
  return objectsOf(value)
    .slice(0, maxParts)
    .flatMap((part) => partOf(part) ?? []);
}

/** 0.3 says of what kind a part is; in 1.0 its member does. */
function partOf(part: JsonObject): A2aPart | undefined {
  const { text, data, file, url, raw } = part;
  const said = shortText(part["kind"]) ?? shortText(part["type"]);
  const isFile = isObject(file) || typeof url === "string" || typeof raw === "string";
  const guessed = typeof text === "string" ? "text" : isFile ? "file" : "data";
  const kind = said ?? (guessed === "data" && data === undefined ? undefined : guessed);
  if (kind === undefined) return undefined;
  const content = contentOf(kind, part);
  return { kind, ...(content === undefined ? {} : { content: bounded(content, maxTextChars) }) };
}

function contentOf(kind: string, part: JsonObject): string | undefined {
  const { text, data, uri, url, raw } = part;
  if (kind === "text") return textOf(text);
  if (kind === "data") return data === undefined ? undefined : spelled(data);
  if (kind !== "file") return undefined;
  const file = objectOf(part["file"]);
  const address = textOf(file["uri"]) ?? textOf(uri) ?? textOf(url);
  return address ?? textOf(file["bytes"]) ?? textOf(data) ?? textOf(raw);
}

function spelled(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch {
    // Nested deeper than the writer goes.
    return truncated;
  }
}

/** The text parts: those of a message are lines, those of an artifact are pieces of one text. */
export function textOfParts(value: unknown, separator: "\n" | ""): string {
  return partsOf(value)
    .flatMap(({ kind, content }) => (kind === "text" && content !== undefined ? [content] : []))
    .join(separator);
}

function pushUrlOf(params: JsonObject): string | undefined {
  const configuration = objectOf(params["configuration"]);
  const config =
    params["pushNotificationConfig"] ??
    configuration["pushNotificationConfig"] ??
    configuration["taskPushNotificationConfig"];
  const url = textOf(objectOf(config)["url"]) ?? textOf(params["url"]);
  if (url === undefined || !URL.canParse(url)) return undefined;
  const { protocol, host, pathname } = new URL(url);
  return bounded(`${protocol}//${host}${pathname}`, maxIdChars);
}
