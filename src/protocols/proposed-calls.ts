/** The tool calls that a response of a language model asks its client to make, in all of its alternatives. */
import { isObject, type JsonObject, objectsOf, truncated } from "../http/json-access.ts";
import type { Dialect } from "./inference-dialect.ts";
import type { InferenceRequest, InferenceToolCall } from "./inference-view.ts";
import { maxToolCalls, ResponseFold } from "./response-fold.ts";

/** Further ones are not read, which {@link ProposedCalls.isCut} tells. */
const maxAlternatives = 32;

/**
 * Calls as far as the response has come.
 *
 * The record keeps the first alternative and stops at an error; a client may act on any of them, whatever stands beside it.
 */
export class ProposedCalls {
  /** Reads into this object what its caller reads as a response of the API; the fold that it is given stays empty. */
  readonly dialect: Dialect;
  readonly #request: InferenceRequest;
  readonly #folds = new Map<string, ResponseFold>();
  #hasMore = false;

  constructor(dialect: Dialect, request: InferenceRequest) {
    this.#request = request;
    this.dialect = {
      ...dialect,
      whole: (_fold, body) =>
        this.#each(body, (fold, alternative) => dialect.whole(fold, alternative)),
      event: (_fold, body, event) =>
        this.#each(body, (fold, alternative) => dialect.event(fold, alternative, event)),
    };
  }

  get calls(): readonly InferenceToolCall[] {
    return [...this.#folds.values()].flatMap(({ view }) => view.toolCalls ?? []);
  }

  /** Grows with everything that the response says of its calls. */
  get size(): number {
    return this.calls.reduce(
      (sum, { id = "", name, arguments: args = "" }) =>
        sum + 1 + id.length + name.length + args.length,
      this.hasTwoNames ? 1 : 0,
    );
  }

  /** Which tool a call is for depends on who reads it. */
  get hasTwoNames(): boolean {
    return [...this.#folds.values()].some((fold) => fold.hasTwoNames);
  }

  /** Every alternative that has calls has said that it ends. */
  get isOver(): boolean {
    return [...this.#folds.values()].every(
      ({ view }) => view.toolCalls === undefined || view.finishReason !== undefined,
    );
  }

  /** There is more than could be kept: a verdict on the calls would be one on other calls. */
  get isCut(): boolean {
    return (
      this.#hasMore ||
      [...this.#folds.values()].some(
        ({ view: { toolCalls = [] } }) =>
          toolCalls.length >= maxToolCalls ||
          toolCalls.some(
            ({ name, arguments: args = "" }) =>
              name.endsWith(truncated) || args.endsWith(truncated),
          ),
      )
    );
  }

  #each(given: JsonObject, read: (fold: ResponseFold, body: JsonObject) => void): void {
    const { error: _error, ...body } = given;
    for (const [key, alternative] of alternativesOf(body)) {
      let fold = this.#folds.get(key);
      if (fold === undefined && this.#folds.size >= maxAlternatives) {
        this.#hasMore = true;
        continue;
      }
      fold ??= new ResponseFold(this.#request);
      this.#folds.set(key, fold);
      read(fold, alternative);
    }
  }
}

/** A body for each alternative, as if it were the only one; each has its number. */
function alternativesOf(body: JsonObject): readonly (readonly [string, JsonObject])[] {
  const { response } = body;
  if (isObject(response) && Array.isArray(response["candidates"])) {
    return alternativesOf(response).map(([key, one]) => [key, { ...body, response: one }]);
  }
  for (const name of ["choices", "candidates"]) {
    const all = objectsOf(body[name]);
    if (all.length === 0) continue;
    return all.map((one, at) => {
      const { index = at, ...rest } = one;
      return [String(index), { ...body, [name]: [{ ...rest, index: 0 }] }];
    });
  }
  return [["0", body]];
}
