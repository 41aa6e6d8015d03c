/** What a policy is shown of the bodies of responses: results of calls, words of language models, outcomes of tasks. */
import { truncated, isObject } from "../../http/json-access.ts";
import type { Frame, RequestContext } from "../../pipeline/plugin.ts";
import { a2aFact, type A2aView } from "../../protocols/a2a-message.ts";
import { ResponseFold, maxToolCalls } from "../../protocols/response-fold.ts";
import { inferenceFact, type InferenceView } from "../../protocols/inference-view.ts";
import { mcpFact } from "../../protocols/mcp-message.ts";
import { jsonOf, unreadableJson } from "../../protocols/message-json.ts";
import { A2aFold } from "../parsers/a2a-response.ts";
import { readFrame as readTaskFrame } from "../parsers/a2a.ts";
import { inferenceEndpoint, readFrame } from "../parsers/inference.ts";
import type { ResponseFacts, IncludedParts, JsonObject } from "../parsers/policy-input.ts";

/** A response as far as it has come. */
interface Reading {
  model?: ResponseFold;
  agent?: A2aFold;
}

/** Views keep texts up to a length; what comes after it would not be judged. */
function cutOff(
  model: Pick<InferenceView, "completion" | "toolCalls"> | undefined,
  agent: Pick<A2aView, "artifact"> | undefined,
): string | undefined {
  const calls = model?.toolCalls ?? [];
  const texts = [model?.completion, agent?.artifact, ...calls.map((call) => call.arguments)];
  const isCut =
    calls.length >= maxToolCalls || texts.some((text) => text?.endsWith(truncated) === true);
  return isCut ? "the answer is longer than a policy can be shown" : undefined;
}

/**
 * Reads bodies and events for one instance, of messages that a parser earlier in the pipeline has recognised.
 *
 * The parsers themselves see responses after this plugin does, because responses go through a pipeline in reverse.
 */
export class OpaResponses {
  readonly #parts: IncludedParts;

  constructor(parts: IncludedParts) {
    this.#parts = parts;
  }

  /** False when no body has ever to be read. */
  get isNeeded(): boolean {
    const { readsResults, readsCompletions, readsTasks } = this.#parts;
    return readsResults || readsCompletions || readsTasks;
  }

  /** Whether the response to this message has to be read. */
  isNeededFor({ hasFacts, facts }: RequestContext): boolean {
    if (!hasFacts) return false;
    return (
      (this.#parts.readsResults && facts.has(mcpFact)) ||
      (this.#parts.readsCompletions && facts.has(inferenceFact)) ||
      (this.#parts.readsTasks && facts.has(a2aFact))
    );
  }

  /** What is known when the head is judged: of a body, if there is one already. */
  whole(context: RequestContext): ResponseFacts {
    const body = this.isNeededFor(context) ? context.response?.body : undefined;
    return body === undefined ? { results: [] } : this.#read(context, { data: body, last: true });
  }

  /** What is known with an event of a stream; undefined when it adds nothing to judge. */
  event(context: RequestContext, frame: Frame): ResponseFacts | undefined {
    if (frame.last || !this.isNeededFor(context)) return undefined;
    const before = this.#said(context);
    const facts = this.#read(context, frame);
    const isNews = facts.results.length > 0 || this.#said(context) !== before;
    return isNews || facts.problem !== undefined ? facts : undefined;
  }

  #read(context: RequestContext, frame: Frame): ResponseFacts {
    const model = this.#readModel(context, frame);
    const agent = this.#readAgent(context, frame);
    const problem = unreadableJson(frame.data) ?? cutOff(model?.view, agent?.view);
    return {
      results: this.#results(context, frame.data),
      problem,
      inference: model?.view,
      a2a: agent?.view,
    };
  }

  #results({ facts }: RequestContext, bytes: Buffer): readonly JsonObject[] {
    if (!this.#parts.readsResults || !facts.has(mcpFact)) return [];
    const json = jsonOf(bytes);
    if (json.kind !== "json") return [];
    const { value } = json;
    return (Array.isArray(value) ? (value as unknown[]) : [value])
      .filter(isObject)
      .filter((message) => message["result"] !== undefined || message["error"] !== undefined);
  }

  #readModel(context: RequestContext, frame: Frame): ResponseFold | undefined {
    const request = context.facts.get(inferenceFact);
    const endpoint = this.#parts.readsCompletions ? inferenceEndpoint(context) : undefined;
    if (endpoint === undefined || request === undefined) return undefined;
    const fold = (this.#reading(context).model ??= new ResponseFold(request));
    readFrame(context, endpoint.dialect, fold, frame);
    return fold;
  }

  #readAgent(context: RequestContext, frame: Frame): A2aFold | undefined {
    const request = context.facts.get(a2aFact);
    if (!this.#parts.readsTasks || request === undefined) return undefined;
    const fold = (this.#reading(context).agent ??= new A2aFold(request));
    readTaskFrame(context, fold, frame);
    return fold;
  }

  /** Changes whenever the response says more. */
  #said(context: RequestContext): string {
    const { model, agent } = this.#reading(context);
    const { completion = "", toolCalls = [] } = model?.view ?? {};
    const { finalStatus = "", artifact = "", errorMessage = "" } = agent?.view ?? {};
    return `${completion.length}:${JSON.stringify(toolCalls).length}:${finalStatus}:${artifact.length}:${errorMessage}`;
  }

  #reading(context: RequestContext): Reading {
    return context.stateOf<Reading>(this, () => ({}));
  }
}
