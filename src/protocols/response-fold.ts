/** A response that grows piece by piece into the view of its call. */
import { bounded, truncated, countOf, numberOf, isObject } from "../http/json-access.ts";
import { boundedName } from "./inference-bounds.ts";
import type {
  InferenceRequest,
  InferenceToolCall,
  InferenceUsage,
  InferenceView,
} from "./inference-view.ts";

const maxCompletionChars = 256 * 1_024;
const maxArgumentsChars = 64 * 1_024;
/** Further ones are passed over. */
export const maxToolCalls = 128;
const maxErrorChars = 1_024;

/** The numbers of a usage block, as its API names them; what is no count is passed over. */
export type UsageFigures = { readonly [Name in keyof InferenceUsage]: unknown };

/**
 * The view with a response, made from the request's.
 *
 * It is a new object: the record of the request keeps what was known when it was made. It is complete at any time, so
 * that a stream that breaks off leaves what came of it.
 */
export class ResponseFold {
  readonly view: InferenceView;
  readonly #calls = new Map<string, InferenceToolCall>();
  /** A call was given a second name: some clients join the two, others keep the first. */
  hasTwoNames = false;

  constructor(request: InferenceRequest) {
    this.view = { ...request };
  }

  /** True when nothing of a response was understood so far. */
  get isEmpty(): boolean {
    const { completion, finishReason, toolCalls, totalTokens, errorMessage } = this.view;
    return (
      completion === undefined &&
      finishReason === undefined &&
      toolCalls === undefined &&
      totalTokens === undefined &&
      errorMessage === undefined
    );
  }

  /** True when neither text nor a tool call came so far. */
  get isSilent(): boolean {
    return this.view.completion === undefined && this.view.toolCalls === undefined;
  }

  text(piece: unknown): void {
    if (typeof piece !== "string" || piece === "") return;
    this.view.completion = grown(this.view.completion ?? "", piece, maxCompletionChars);
  }

  finish(reason: unknown): void {
    const text = typeof reason === "string" ? boundedName(reason) : undefined;
    if (text !== undefined && text !== "") this.view.finishReason = text;
  }

  /** Opens the tool call that `key` stands for, or adds what was not known of it. */
  toolCall(key: string, id: unknown, name: unknown): void {
    const known = this.#calls.get(key);
    const call: InferenceToolCall = known ?? { name: "" };
    if (known === undefined) {
      const calls = (this.view.toolCalls ??= []);
      if (calls.length >= maxToolCalls) return;
      calls.push(call);
      this.#calls.set(key, call);
    }
    const text = typeof id === "string" ? boundedName(id) : undefined;
    if (text !== undefined && text !== "") call.id = text;
    if (typeof name !== "string" || name === "") return;
    const bound = bounded(name, 256);
    if (call.name === "") call.name = bound;
    else if (call.name !== bound) this.hasTwoNames = true;
  }

  /** Adds a piece of the arguments of a call that was opened; pieces of others are passed over. */
  toolArguments(key: string, piece: unknown): void {
    const call = this.#calls.get(key);
    if (call === undefined || typeof piece !== "string" || piece === "") return;
    call.arguments = grown(call.arguments ?? "", piece, maxArgumentsChars);
  }

  /** Closes a call with what it turned out to be, where the API says it once more. */
  settledToolCall(key: string, call: { id: unknown; name: unknown; args: unknown }): void {
    this.toolCall(key, call.id, call.name);
    const known = this.#calls.get(key);
    if (known === undefined || call.args === undefined) return;
    delete known.arguments;
    this.toolArguments(key, argumentsText(call.args));
  }

  /** Adds a call that came whole; arguments that are no text are spelled as JSON. */
  wholeToolCall(id: unknown, name: unknown, args: unknown): void {
    const key = `whole-${this.#calls.size}`;
    this.toolCall(key, id, name);
    this.toolArguments(key, argumentsText(args));
  }

  /** Providers restate their totals: the latest figure counts, and one that is missing leaves the earlier one. */
  usage(figures: UsageFigures): void {
    const { view } = this;
    for (const name of countNames) {
      const count = countOf(figures[name]);
      if (count !== undefined) view[name] = count;
    }
    this.cost(figures.costUsd);
    const { promptTokens, completionTokens } = view;
    if (countOf(figures.totalTokens) !== undefined) return;
    if (promptTokens === undefined && completionTokens === undefined) return;
    view.totalTokens = (promptTokens ?? 0) + (completionTokens ?? 0);
  }

  cost(value: unknown): void {
    const cost = numberOf(value);
    if (cost !== undefined && cost >= 0) this.view.costUsd = cost;
  }

  fail(message: unknown): void {
    if (typeof message !== "string" || message === "") return;
    this.view.errorMessage = bounded(message, maxErrorChars);
  }
}

const countNames = [
  "promptTokens",
  "completionTokens",
  "totalTokens",
  "cacheReadTokens",
  "cacheWriteTokens",
  "reasoningTokens",
] as const;

/** Arguments as JSON; a text is JSON already. */
function argumentsText(args: unknown): string {
  return typeof args === "string" ? args : (JSON.stringify(args) ?? "");
}

/** V8 joins texts when they are read, so adding a piece costs nothing that grows with the text. */
function grown(text: string, piece: string, maxChars: number): string {
  if (text.length >= maxChars) return text.endsWith(truncated) ? text : text + truncated;
  return bounded(text + piece, maxChars);
}

const textKinds: ReadonlySet<unknown> = new Set(["text", "input_text", "output_text", undefined]);

/** Text parts joined by line feeds; images, files and tool results are left out. */
export function contentText(content: unknown): string | undefined {
  if (typeof content === "string") return content === "" ? undefined : content;
  if (!Array.isArray(content)) return undefined;
  const texts: string[] = [];
  for (const part of content) {
    if (typeof part === "string") texts.push(part);
    else if (isObject(part) && typeof part["text"] === "string" && textKinds.has(part["type"])) {
      texts.push(part["text"]);
    }
  }
  const text = texts.filter((one) => one !== "").join("\n");
  return text === "" ? undefined : text;
}
