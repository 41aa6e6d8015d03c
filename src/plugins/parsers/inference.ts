/** inference-parser: records requests to language models and their responses. It refuses nothing. */
import { frameReaderFor } from "../../http/frames.ts";
import { isObject } from "../../http/json-access.ts";
import { readPath } from "../../http/path.ts";
import { ResponseFold } from "../../protocols/response-fold.ts";
import type { Dialect } from "../../protocols/inference-dialect.ts";
import { type Endpoint, endpointOf, isModelSocket } from "../../protocols/inference-endpoints.ts";
import { EndpointMap, inferenceConfig, mappedEndpoint } from "./endpoint-map.ts";
import { RealtimeSession } from "../../protocols/openai-realtime.ts";
import {
  inferenceFact,
  type InferenceRequest,
  type InferenceView,
} from "../../protocols/inference-view.ts";
import {
  type Decision,
  definePlugin,
  type Frame,
  type HeardMessage,
  observe,
  type Plugin,
  type RequestContext,
  skip,
} from "../../pipeline/plugin.ts";
import {
  isEndOfEvents,
  type JsonBody,
  mayBeJson,
  requestJson,
  unreadOf,
} from "../../protocols/message-json.ts";
import { type Prices, type PriceTable, sharedPrices, wholeNanos } from "./prices.ts";

/** The definition that a pipeline names. */
export const inferenceParser = definePlugin({
  name: "inference-parser",
  description: "Records calls of language models: model, messages, tools, answer, tokens and cost",
  body: { request: "read", response: "read" },
  observes: true,
  config: inferenceConfig,
  create: (config, deps) => new InferenceParser(sharedPrices(deps), new EndpointMap(config)),
});

/** The endpoint of a conversation, or of vectors, that a request calls: its body is JSON. */
export function inferenceEndpoint(context: RequestContext): Endpoint | undefined {
  const endpoint = modelEndpoint(context);
  return endpoint?.isMedia === true ? undefined : endpoint;
}

/** The endpoint that a request calls: as the file of a parser before maps it, else by the path as some server reads it. */
export function modelEndpoint(context: RequestContext): Endpoint | undefined {
  const mapped = context.hasFacts ? context.facts.get(mappedEndpoint) : undefined;
  if (mapped !== undefined) return mapped;
  for (const path of readPath(context.path).readings) {
    const endpoint = endpointOf(context.method, path, context.destination.host);
    if (endpoint !== undefined) return endpoint;
  }
  return undefined;
}

/** An upgrade to a WebSocket on which events of OpenAI's are spoken. */
function isOpenAiSocket({ upgrade, path }: RequestContext): boolean {
  if (upgrade?.toLowerCase() !== "websocket") return false;
  return readPath(path).readings.some(
    (reading) => /\/(?:realtime|responses)\/?$/.test(reading) && isModelSocket(reading),
  );
}

/** One recognised call, from its request to the end of its response. */
class Call {
  readonly dialect: Dialect;
  readonly request: InferenceRequest;
  fold: ResponseFold | undefined;

  constructor(dialect: Dialect, request: InferenceRequest) {
    this.dialect = dialect;
    this.request = request;
  }
}

interface Memory {
  endpoint?: Endpoint | "none";
  call?: Call;
  /** Of a connection that goes on as a WebSocket. */
  session?: RealtimeSession;
}

class InferenceParser implements Plugin {
  readonly #prices: Prices;
  readonly #map: EndpointMap;

  constructor(prices: Prices, map: EndpointMap) {
    this.#prices = prices;
    this.#map = map;
  }

  wantsBody(context: RequestContext): boolean {
    const endpoint = this.#endpoint(context);
    return endpoint !== undefined && (endpoint.isMedia !== true || mayBeJson(context));
  }

  onRequest(context: RequestContext): Decision | undefined {
    const endpoint = this.#endpoint(context);
    if (endpoint === undefined) return this.#openSession(context);
    const isUpload = endpoint.isMedia === true && !mayBeJson(context);
    const unread = isUpload ? undefined : unreadOf(context);
    if (unread !== undefined) return unread;
    const json: JsonBody = isUpload ? { kind: "json", value: {} } : requestJson(context);
    if (json.kind === "absent") return undefined;
    if (json.kind === "invalid") return skip("unparsable", { why: json.reason });
    if (!isObject(json.value)) return undefined;
    const view = endpoint.dialect.request(json.value, endpoint.place);
    if (view === undefined) return undefined;
    context.facts.set(inferenceFact, view);
    this.#memory(context).call = new Call(endpoint.dialect, view);
    return observe(`matched_${view.model ?? view.api}`);
  }

  wantsAnswer(context: RequestContext): boolean {
    return this.#memory(context).call !== undefined;
  }

  hearsMessages(context: RequestContext): boolean {
    return this.#memory(context).session !== undefined;
  }

  onHeard(context: RequestContext, { from, kind, data }: HeardMessage): void {
    const { session } = this.#memory(context);
    const event = kind === "text" ? parsed(data) : undefined;
    if (session === undefined || !isObject(event)) return;
    if (from === "client") session.asked(event);
    else session.said(event);
    const { view } = session;
    context.facts.set(inferenceFact, view);
    if (view.totalTokens !== undefined) publishCost(context, view, this.#prices.table);
  }

  onFrame(context: RequestContext, frame: Frame): Decision | undefined {
    const { call } = this.#memory(context);
    if (call === undefined) return undefined;
    const fold = (call.fold ??= openFold(context, call));
    const isRead = readFrame(context, call.dialect, fold, frame);
    publishCost(context, fold.view, this.#prices.table);
    if (!isRead) return skip("unparsable_response");
    if (!frame.last) return undefined;
    const unread = unreadOf(context.response);
    if (unread !== undefined) return unread;
    if (fold.isEmpty) return skip("no_response_body");
    const { model, api } = call.request;
    return observe(`matched_${model ?? api}_response`);
  }

  #openSession(context: RequestContext): Decision | undefined {
    if (!isOpenAiSocket(context)) return undefined;
    const model = /[?&]model=([^&#]{1,256})/.exec(context.path)?.[1];
    this.#memory(context).session = new RealtimeSession(model);
    return observe(`matched_${model ?? "openai.realtime"}`);
  }

  #endpoint(context: RequestContext): Endpoint | undefined {
    const memory = this.#memory(context);
    if (memory.endpoint === undefined) {
      this.#map.apply(context);
      memory.endpoint = modelEndpoint(context) ?? "none";
    }
    return memory.endpoint === "none" ? undefined : memory.endpoint;
  }

  #memory(context: RequestContext): Memory {
    return context.stateOf<Memory>(this, () => ({}));
  }
}

/** The view of the response takes the place of the request's, whose record is made already. */
function openFold(context: RequestContext, call: Call): ResponseFold {
  const fold = new ResponseFold(call.request);
  context.facts.set(inferenceFact, fold.view);
  const headers = context.response?.headers;
  // What gateways and Bedrock report beside the body.
  const cost = headers?.get("x-litellm-response-cost");
  if (cost !== undefined && cost !== "") fold.cost(Number(cost));
  const input = headers?.get("x-amzn-bedrock-input-token-count");
  const output = headers?.get("x-amzn-bedrock-output-token-count");
  if (input !== undefined || output !== undefined) {
    fold.usage({ promptTokens: Number(input), completionTokens: Number(output) });
  }
  return fold;
}

/**
 * What the call cost, where the sums of the session API look for it: what the provider says, else what its tokens cost
 * by the prices of a budget.
 */
function publishCost(
  context: RequestContext,
  view: InferenceView,
  prices: PriceTable | undefined,
): void {
  const isCounted = prices !== undefined && view.totalTokens !== undefined;
  const counted = isCounted ? prices.nanosOf(view.model ?? "", view) : undefined;
  const nanos = view.costUsd === undefined ? counted : wholeNanos(view.costUsd);
  if (nanos === undefined) return;
  context.facts.set("inference-parser/event", { costMicros: Math.round(nanos / 1_000) });
}

/** False where a frame cannot be understood: whoever only records refuses nothing. */
export function readFrame(
  context: RequestContext,
  dialect: Dialect,
  fold: ResponseFold,
  frame: Frame,
): boolean {
  try {
    if (!frame.last) readEvent(dialect, fold, frame.data, frame.event);
    else if (frame.data.length > 0) return readWhole(context, dialect, fold, frame.data);
    return true;
  } catch {
    return !frame.last;
  }
}

function readEvent(
  dialect: Dialect,
  fold: ResponseFold,
  data: Buffer,
  event: string | undefined,
): void {
  if (isEndOfEvents(data)) return;
  const value = parsed(data);
  if (isObject(value)) dialect.event(fold, value, event);
}

/** Reads a response that came whole; false when it is none of its API. */
function readWhole(
  context: RequestContext,
  dialect: Dialect,
  fold: ResponseFold,
  data: Buffer,
): boolean {
  // A stream comes whole where another plugin replaces bodies.
  const type = context.response?.headers.get("content-type");
  const reader = frameReaderFor(type, data.length);
  if (reader !== undefined) {
    for (const frame of [...reader.push(data), ...reader.end()]) {
      if (frame.data !== undefined) readEvent(dialect, fold, Buffer.from(frame.data), frame.event);
    }
    return true;
  }
  const value = parsed(data);
  if (Array.isArray(value)) {
    // Gemini streams an array where nobody asks for events.
    for (const one of value) if (isObject(one)) dialect.event(fold, one, undefined);
    return true;
  }
  if (!isObject(value)) return false;
  dialect.whole(fold, value);
  return true;
}

/** Recording a response is no judgement: of a key that comes twice the last one counts, as it does to its client. */
function parsed(data: Buffer): unknown {
  try {
    return JSON.parse(data.toString("utf8"));
  } catch {
    return undefined;
  }
}
