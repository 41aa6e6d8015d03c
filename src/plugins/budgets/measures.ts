/** How much of each unit a message will take, as far as can be said before, and how much it took. */
import { countOf } from "../../http/json-access.ts";
import { readPath } from "../../http/path.ts";
import type { Outcome, RequestContext } from "../../pipeline/plugin.ts";
import { inferenceFact, type InferenceView, tokensIn } from "../../protocols/inference-view.ts";
import { type McpFact, mcpFact } from "../../protocols/mcp-message.ts";
import { isModelSocket } from "../../protocols/inference-endpoints.ts";
import { modelEndpoint } from "../parsers/inference.ts";
import { type PriceTable, wholeNanos } from "../parsers/prices.ts";
import type { DistinctUnit, Unit } from "./limit.ts";

/** What is known of a message before it goes. */
export interface Asked {
  /** A call of a language model. */
  readonly isInference: boolean;
  /** The parser's view of it; undefined where it could not be read, or nobody has. */
  readonly view: InferenceView | undefined;
  readonly toolCalls: number;
  /** Of the body, as far as it is known. */
  readonly bytes: number;
  /** The call goes over a WebSocket: what it takes is known when it is over. */
  readonly isSocket?: true;
}

/** What a tunnel is: no call of anything. */
export const noCall: Asked = { isInference: false, view: undefined, toolCalls: 0, bytes: 0 };

/** Units of calls of language models. */
export const callUnits: ReadonlySet<Unit> = new Set(["tokens", "cost", "calls"]);

/** Reads what parsers left; where none did, the path says whether it is a call of a language model. */
export function askedOf(context: RequestContext, looksForCalls: boolean): Asked {
  const view = context.hasFacts ? context.facts.get(inferenceFact) : undefined;
  const length = Number(context.headers.get("content-length") ?? 0);
  const isSocket = looksForCalls && isSocketCall(context);
  const isCall = looksForCalls && (isSocket || modelEndpoint(context) !== undefined);
  return {
    isInference: view !== undefined || isCall,
    ...(isSocket ? { isSocket } : {}),
    view,
    toolCalls: context.hasFacts ? toolCallsOf(context.facts.get(mcpFact)) : 0,
    bytes: context.body?.length ?? (Number.isSafeInteger(length) && length > 0 ? length : 0),
  };
}

function isSocketCall({ upgrade, path }: RequestContext): boolean {
  return upgrade !== undefined && readPath(path).readings.some(isModelSocket);
}

function toolCallsOf(fact: McpFact | undefined): number {
  if (fact === undefined) return 0;
  return (fact.batch ?? [fact]).filter(({ method }) => method === "tools/call").length;
}

/** How estimates are made. */
export interface EstimateOptions {
  readonly prices: PriceTable | undefined;
  /** Tokens of an answer that is not bounded by its request. */
  readonly answerTokens: number;
  /** The same of bytes. */
  readonly answerBytes: number;
}

/** What the request says that its answer has at most; it may say anything. */
function boundOf(view: InferenceView | undefined): number | undefined {
  return countOf(view?.maxTokens);
}

/** What a message takes of a unit at most, as far as it says; undefined where it is not counted. */
export function estimateOf(
  unit: Exclude<Unit, DistinctUnit | "bytes_up" | "bytes_down">,
  { isInference, view, toolCalls, bytes }: Asked,
  { prices, answerTokens, answerBytes }: EstimateOptions,
): number | undefined {
  const promptTokens = tokensIn(bytes);
  const completionTokens = boundOf(view) ?? answerTokens;
  switch (unit) {
    case "requests":
      return 1;
    case "seconds":
      return undefined;
    case "calls":
      return isInference ? 1 : undefined;
    case "tool_calls":
      return toolCalls === 0 ? undefined : toolCalls;
    case "bytes":
      return bytes + answerBytes;
    case "tokens":
      return isInference ? promptTokens + completionTokens : undefined;
    case "cost":
      if (!isInference) return undefined;
      return prices?.nanosOf(view?.model ?? "", { promptTokens, completionTokens }) ?? 0;
  }
}

/** What a message took; `isKnown` is false where the provider did not say, and it is an estimate. */
export interface Taken {
  readonly amount: number;
  readonly isKnown: boolean;
}

/** A message that is over. */
export interface Ended extends EstimateOptions {
  readonly context: RequestContext;
  readonly outcome: Outcome;
  readonly asked: Asked;
}

const nothing: Taken = { amount: 0, isKnown: true };

/** A message that never left took nothing; of one that was refused upstream, tokens and cost are what it says. */
export function takenOf(unit: Unit, parts: Ended): Taken {
  const { context, outcome, asked, prices } = parts;
  if (unit === "bytes") {
    const { received = 0, sent = 0 } = outcome.bytes ?? {};
    return { amount: received + sent, isKnown: true };
  }
  if (context.onward === undefined) return nothing;
  if (unit === "requests") return { amount: 1, isKnown: true };
  if (unit === "tool_calls") return { amount: asked.toolCalls, isKnown: true };
  if (!asked.isInference) return nothing;
  if (unit === "calls") return { amount: 1, isKnown: true };
  const view = context.facts.get(inferenceFact);
  const usage = usageOf(view, parts);
  if (usage === undefined) return nothing;
  if (unit === "tokens") return { amount: usage.tokens, isKnown: usage.isKnown };
  const charged = chargedOf(context, view);
  if (charged !== undefined) return { amount: wholeNanos(charged), isKnown: true };
  const nanos = prices?.nanosOf(view?.model ?? "", usage.figures);
  return { amount: nanos ?? 0, isKnown: nanos !== undefined && usage.isKnown };
}

interface Usage {
  readonly tokens: number;
  readonly figures: Pick<
    InferenceView,
    "promptTokens" | "completionTokens" | "cacheReadTokens" | "cacheWriteTokens"
  >;
  readonly isKnown: boolean;
}

/**
 * Undefined where the provider refused the call, or never got it.
 *
 * Whoever leaves before the end does not make a call cheaper: what came so far counts, whatever figures it began with,
 * and a call that was left unanswered counts as one that was answered.
 */
function usageOf(
  view: InferenceView | undefined,
  { context, outcome, asked, answerTokens }: Ended,
): Usage | undefined {
  // Many clients leave at the last event, without waiting for the end of the body.
  const isWhole =
    view?.finishReason !== undefined ||
    (outcome.cancelled === undefined && outcome.error === undefined);
  if (view?.totalTokens !== undefined && isWhole) {
    return { tokens: view.totalTokens, figures: view, isKnown: true };
  }
  const promptTokens = view?.promptTokens ?? tokensIn(asked.bytes);
  const status = context.onward?.status;
  if (status === undefined && outcome.cancelled === true) {
    return estimated(promptTokens, Math.min(boundOf(view) ?? answerTokens, answerTokens));
  }
  if (status === undefined || status >= 400) return undefined;
  const seen = Math.max(view?.completionTokens ?? 0, tokensSeen(view, outcome));
  return estimated(promptTokens, seen, view);
}

function estimated(promptTokens: number, completionTokens: number, view?: InferenceView): Usage {
  const figures = { ...view, promptTokens, completionTokens };
  return { tokens: promptTokens + completionTokens, figures, isKnown: false };
}

/** What the model said, by its length; of a response that nobody could read, the length of that. */
function tokensSeen(view: InferenceView | undefined, { bytes }: Outcome): number {
  let chars = view?.completion?.length ?? 0;
  for (const { name, arguments: given = "" } of view?.toolCalls ?? []) {
    chars += name.length + given.length;
  }
  // Vectors are long, and are no tokens.
  const isVector = view?.api.endsWith("embed") === true || view?.api === "openai.embeddings";
  return chars > 0 || isVector ? tokensIn(chars) : tokensIn(bytes?.sent ?? 0);
}

/** What a gateway says that it charged, in dollars: in the body, or beside it. Never the request's word. */
function chargedOf(
  { response }: RequestContext,
  view: InferenceView | undefined,
): number | undefined {
  if (view?.costUsd !== undefined) return view.costUsd;
  const text = response?.headers.get("x-litellm-response-cost");
  const cost = text === undefined || text.trim() === "" ? Number.NaN : Number(text);
  return Number.isFinite(cost) && cost > 0 ? cost : undefined;
}
