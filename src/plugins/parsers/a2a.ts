/** a2a-parser: records what messages between agents say, and so what users ask for. It refuses nothing. */
import { frameReaderFor } from "../../http/frames.ts";
import { isObject, objectOf } from "../../http/json-access.ts";
import { classifyRpc, messagesOf } from "../../http/json-rpc.ts";
import { readPath } from "../../http/path.ts";
import {
  type Answer,
  definePlugin,
  type Frame,
  observe,
  type Plugin,
  type RequestContext,
  skip,
} from "../../pipeline/plugin.ts";
import { A2aFold } from "./a2a-response.ts";
import {
  a2aFact,
  type A2aView,
  callView,
  isA2aAction,
  paramsView,
} from "../../protocols/a2a-message.ts";
import { mcpFact } from "../../protocols/mcp-message.ts";
import { mayBeJson, requestJson, unreadOf } from "../../protocols/message-json.ts";

/** The definition that a pipeline names. */
export const a2aParser = definePlugin({
  name: "a2a-parser",
  description: "Records A2A messages: conversation, task, words of the user, outcome",
  body: { request: "read", response: "read" },
  observes: true,
  create: () => new A2aParser(),
});

interface Memory {
  request?: A2aView;
  fold?: A2aFold;
}

class A2aParser implements Plugin {
  wantsBody(context: RequestContext): boolean {
    return context.method === "POST" && mayBeJson(context);
  }

  onRequest(context: RequestContext): Answer {
    const view = restView(context) ?? rpcView(context);
    if (view === undefined) return unreadOf(context);
    context.facts.set(a2aFact, view);
    this.#memory(context).request = view;
    return observe(`matched_${view.method ?? "batch"}`);
  }

  wantsAnswer(context: RequestContext): boolean {
    return this.#memory(context).request !== undefined;
  }

  onFrame(context: RequestContext, frame: Frame): Answer {
    const memory = this.#memory(context);
    const { request } = memory;
    if (request === undefined) return undefined;
    memory.fold ??= new A2aFold(request);
    const { fold } = memory;
    // The record of the request is made already; from here on the view grows with the response.
    context.facts.set(a2aFact, fold.view);
    const isRead = readFrame(context, fold, frame);
    if (!frame.last) return undefined;
    const unread = unreadOf(context.response);
    if (unread !== undefined) return unread;
    if (!isRead) return skip("unparsable_response");
    if (fold.isEmpty) return skip("no_response_body");
    return observe(fold.isError ? "response_error" : `matched_${request.method}_response`);
  }

  #memory(context: RequestContext): Memory {
    return context.stateOf<Memory>(this, () => ({}));
  }
}

/** Fields of clients of the Model Context Protocol, which has methods of the same names. */
const mcpFields = ["mcp-session-id", "mcp-protocol-version", "mcp-method"];

function rpcView(context: RequestContext): A2aView | undefined {
  if (context.method !== "POST") return undefined;
  const json = requestJson(context);
  if (json.kind !== "json") return undefined;
  const body = classifyRpc(json.value);
  const views = messagesOf(body).flatMap((message) => callView(message) ?? []);
  const [first] = views;
  if (first === undefined) return undefined;
  if (views.every(({ method = "" }) => method.startsWith("tasks/")) && isMcp(context)) {
    return undefined;
  }
  if (body.kind !== "batch") return first;
  const said = views.find(({ method }) => isA2aAction(method)) ?? first;
  return { ...said, batch: views };
}

function isMcp(context: RequestContext): boolean {
  return (
    (context.hasFacts && context.facts.has(mcpFact)) ||
    mcpFields.some((name) => context.headers.has(name))
  );
}

/** The REST binding: the operation is in the path, the parameters are the body. */
function restView(context: RequestContext): A2aView | undefined {
  for (const path of readPath(context.path).readings) {
    const view = restViewAt(context, path);
    if (view !== undefined) return view;
  }
  return undefined;
}

function restViewAt(context: RequestContext, path: string): A2aView | undefined {
  const verb = /\/message:(send|stream)$/.exec(path)?.[1];
  if (verb !== undefined && context.method === "POST") {
    const json = requestJson(context);
    if (json.kind !== "json" || !isObject(objectOf(json.value)["message"])) return undefined;
    const method = `message/${verb}`;
    return { method, ...paramsView(method, objectOf(json.value)) };
  }
  // The paths of tasks are everybody's: only a client that says so is one of this protocol.
  if (!context.headers.has("a2a-version")) return undefined;
  const task = /\/tasks\/([^/:]{1,256})(?::(cancel|subscribe))?$/.exec(path);
  const [, taskId, action] = task ?? [];
  if (taskId === undefined) return undefined;
  const method = action === "subscribe" ? "resubscribe" : (action ?? "get");
  return { method: `tasks/${method}`, taskId };
}

/** False where a body is none of the protocol; whoever only records refuses nothing. */
export function readFrame(context: RequestContext, fold: A2aFold, { data, last }: Frame): boolean {
  if (data.length === 0) return true;
  try {
    const type = context.response?.headers.get("content-type");
    const reader = last ? frameReaderFor(type, data.length) : undefined;
    const texts =
      reader === undefined
        ? [data]
        : [...reader.push(data), ...reader.end()].flatMap((frame) => frame.data ?? []);
    for (const text of texts) {
      const value: unknown = JSON.parse(text.toString());
      for (const one of Array.isArray(value) ? value : [value]) if (isObject(one)) fold.add(one);
    }
    return true;
  } catch {
    return false;
  }
}
