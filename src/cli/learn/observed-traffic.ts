/** What was asked for, read from session events: connections, requests, calls of tools, calls of models. */
import { isObject } from "../../http/json-access.ts";
import { type Destination, parseAuthority } from "../../net/destination.ts";

/** A request as rules see it, or a connection whose inside nobody saw. */
export interface Observation {
  readonly host: string;
  readonly port: number;
  /** Undefined where nobody looked, or nothing could be known. */
  readonly executable: string | undefined;
  /** Undefined for a connection whose requests were not seen. */
  readonly request: ObservedRequest | undefined;
  /** The largest content that one of them sent. */
  sentBytes: number;
}

/** One kind of request. */
export interface ObservedRequest {
  readonly method: string;
  /** As it was spelt, without its query. */
  readonly path: string;
  /** Messages of the Model Context Protocol. */
  readonly calls?: readonly ObservedCall[];
  /** A call of a language model: its API and the model. */
  readonly model?: { readonly api: string; readonly model: string };
}

/** One message to an MCP server. */
export interface ObservedCall {
  readonly method: string;
  readonly tool?: string;
  readonly args?: unknown;
}

/** A client can ask for any number of different things; nobody reads a policy of more rules than this. */
const maxObservations = 20_000;
const maxPending = 10_000;

type Event = Readonly<Record<string, unknown>>;

/** Collects what events say; the same request twice is one. */
export class ObservedTraffic {
  readonly #known = new Map<string, Observation>();
  /** Messages whose end has not been told. */
  readonly #pending = new Map<string, Observation>();
  #refused = 0;
  #omitted = 0;

  /** What was seen, in order of first appearance. */
  get observations(): readonly Observation[] {
    return [...this.#known.values()];
  }

  /** Messages that were refused by a rule, and that nothing is learned from. */
  get refused(): number {
    return this.#refused;
  }

  /** Messages that there was no room for. */
  get omitted(): number {
    return this.#omitted;
  }

  /** Takes one event of the session API, or a line of its file; anything else is not looked at. */
  hear(line: Event): void {
    const event = isObject(line["event"]) ? line["event"] : line;
    const { direction, phase, requestId } = event;
    if (direction !== "outbound" || typeof requestId !== "string") return;
    if (phase === "request") this.#begin(requestId, event);
    // What rules let pass and the guard of addresses refuses is told apart when the policy is made.
    else if (phase === "response" || this.#pending.has(requestId)) this.#end(requestId, event);
    else if (phase === "denied") this.#refused += 1;
  }

  #begin(id: string, event: Event): void {
    const observation = observationOf(event);
    if (observation === undefined) return;
    // What a connection is for is known at its end only.
    if (observation.request !== undefined) this.#keep(observation);
    const [oldest] = this.#pending.keys();
    if (this.#pending.size >= maxPending && oldest !== undefined) this.#pending.delete(oldest);
    this.#pending.set(id, observation);
  }

  #end(id: string, event: Event): void {
    const begun = this.#pending.get(id);
    if (begun === undefined) return;
    this.#pending.delete(id);
    // An opened connection is told by the requests in it, and one whose client left in the handshake by nothing.
    const isOpened = event["bridged"] === true || isClientFault(event["error"]);
    if (begun.request === undefined && isOpened) return;
    const { bytesReceived } = event;
    begun.sentBytes = typeof bytesReceived === "number" ? bytesReceived : 0;
    this.#keep(begun);
  }

  #keep(observation: Observation): void {
    const { host, port, executable, request } = observation;
    const key = JSON.stringify([host, port, executable, request]);
    const known = this.#known.get(key);
    if (known !== undefined) known.sentBytes = Math.max(known.sentBytes, observation.sentBytes);
    else if (this.#known.size < maxObservations) this.#known.set(key, observation);
    else this.#omitted += 1;
  }
}

/** The client would not speak to us: what it wanted is seen when it comes again. */
function isClientFault(error: unknown): boolean {
  const code = isObject(error) ? error["code"] : undefined;
  return code === "tls.client-rejected" || code === "pipeline.cancelled";
}

function observationOf(event: Event): Observation | undefined {
  const place = placeOf(event);
  if (place === undefined) return undefined;
  const { host, port } = place;
  const { executable } = event;
  const facts = {
    host,
    port,
    executable: typeof executable === "string" && executable !== "" ? executable : undefined,
    sentBytes: 0,
  };
  if (event["tunnel"] === true) return { ...facts, request: undefined };
  const { httpMethod: method, httpPath: path } = event;
  if (typeof method !== "string" || typeof path !== "string") return undefined;
  const request = { method: method.toUpperCase(), path, ...callsOf(event), ...modelOf(event) };
  return { ...facts, request };
}

function placeOf({ host, port }: Event): Destination | undefined {
  if (typeof host !== "string") return undefined;
  try {
    return parseAuthority(host, "https", port === 80 ? 80 : 443);
  } catch {
    return undefined;
  }
}

/** Calls of MCP; nothing for what the transport does by methods of HTTP. */
function callsOf({ mcp }: Event): Pick<ObservedRequest, "calls"> {
  if (!isObject(mcp)) return {};
  const messages: readonly unknown[] = Array.isArray(mcp["batch"]) ? mcp["batch"] : [mcp];
  const calls = messages.flatMap((message) => {
    const { method, params } = isObject(message) ? message : {};
    if (typeof method !== "string" || method.startsWith("$transport/")) return [];
    if (method !== "tools/call") return [{ method }];
    const { name, arguments: args = {} } = isObject(params) ? params : {};
    return typeof name === "string" ? [{ method, tool: name, args }] : [];
  });
  const { method } = mcp;
  const isTransport = typeof method === "string" && method.startsWith("$transport/");
  return isTransport ? {} : { calls };
}

function modelOf({ inference }: Event): Pick<ObservedRequest, "model"> {
  if (!isObject(inference)) return {};
  const { api, model } = inference;
  if (typeof api !== "string") return {};
  return { model: { api, model: typeof model === "string" ? model : "" } };
}
