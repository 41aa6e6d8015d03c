/** Judges the tool calls that a language model asks for, before the agent gets to see any of them. */
import { frameReaderFor, type StreamFrame, writeFrame } from "../../http/frames.ts";
import { isObject, type JsonObject } from "../../http/json-access.ts";
import type { WrittenFrame } from "../../pipeline/decision.ts";
import {
  type Decision,
  deny,
  type Frame,
  holdFrame,
  replaceFrame,
  replaceHeld,
  type RequestContext,
} from "../../pipeline/plugin.ts";
import type { Dialect, DialectEvent } from "../../protocols/inference-dialect.ts";
import type { InferenceToolCall, InferenceView } from "../../protocols/inference-view.ts";
import { isEndOfEvents, jsonOf, unreadableJson } from "../../protocols/message-json.ts";
import { ProposedCalls } from "../../protocols/proposed-calls.ts";
import { ResponseFold } from "../../protocols/response-fold.ts";
import { readFrame } from "../parsers/inference.ts";
import { clarification } from "./clarification.ts";
import type { Ruling } from "./ruling.ts";

/** Who decides on calls. */
export interface Judge {
  /** Undefined where none of the calls is to be judged. */
  rule(
    context: RequestContext,
    calls: readonly InferenceToolCall[],
    request: InferenceView,
  ): Promise<Ruling> | undefined;
  unparsable(why: string): Ruling;
  /** False where nothing is ever kept from the agent. */
  readonly mayStop: boolean;
}

const tooLong = "a tool call is longer than can be judged";
const twoNames = "a tool call has two names";

/** A stream without a content type that says so. */
const opensEvents = /^(?:ï»¿)?(?:data|event|id|retry)?:/;

/** One response, from its first byte to its last. */
export class ResponseGate {
  readonly #judge: Judge;
  readonly #dialect: Dialect;
  readonly #request: InferenceView;
  readonly #calls: ProposedCalls;
  /** What is kept back, from the event that opened a call. */
  #held: WrittenFrame[] = [];
  /** What the calls said when they were judged last. */
  #judged = 0;

  constructor(judge: Judge, dialect: Dialect, request: InferenceView) {
    this.#judge = judge;
    this.#dialect = dialect;
    this.#request = request;
    this.#calls = new ProposedCalls(dialect, request);
  }

  onFrame(
    context: RequestContext,
    frame: Frame,
  ): Decision | undefined | Promise<Decision | undefined> {
    if (frame.last && frame.data.length > 0) return this.#whole(context, frame.data);
    const problem = this.#read(context, frame);
    if (problem !== undefined) return this.#unreadable(problem);
    if (this.#calls.size === this.#judged) return undefined;
    const { event, data, last } = frame;
    if (this.#judge.mayStop) this.#held.push({ event, data });
    // A stream may end for its reader before it ends for us.
    if (last || isEndOfEvents(data) || this.#calls.isOver) return this.#judgeHeld(context);
    return this.#judge.mayStop ? holdFrame : undefined;
  }

  /** Reads a frame into the calls; why it cannot be read, where its client may read what we do not. */
  #read(context: RequestContext, frame: Frame): string | undefined {
    readFrame(context, this.#calls.dialect, new ResponseFold(this.#request), frame);
    return unreadableJson(frame.data);
  }

  async #judgeHeld(context: RequestContext): Promise<Decision | undefined> {
    const held = this.#held;
    this.#held = [];
    this.#judged = this.#calls.size;
    const ruling = await this.#ruling(context);
    if (ruling?.kind !== "stop") return ruling?.decision;
    const instead = this.#spokenFrames(held, ruling);
    return instead === undefined
      ? this.#refusal(ruling)
      : replaceHeld(ruling.reason, instead, ruling.details);
  }

  async #ruling(context: RequestContext): Promise<Ruling | undefined> {
    const { calls, isCut, hasTwoNames } = this.#calls;
    if (calls.length === 0) return undefined;
    if (isCut) return this.#judge.unparsable(tooLong);
    if (hasTwoNames) return this.#judge.unparsable(twoNames);
    return this.#judge.rule(context, calls, this.#request);
  }

  /** A body that came whole: one value, or a stream that another plugin has had collected. */
  async #whole(context: RequestContext, data: Buffer): Promise<Decision | undefined> {
    const type = context.response?.headers.get("content-type");
    const isStream = opensEvents.test(data.toString("latin1", 0, 16));
    const reader =
      frameReaderFor(type, data.length) ??
      (isStream ? frameReaderFor("text/event-stream", data.length) : undefined);
    if (reader !== undefined) {
      return this.#wholeStream(context, [...reader.push(data), ...reader.end()]);
    }
    const problem = this.#read(context, { data, last: true });
    if (problem !== undefined) return this.#unreadable(problem);
    const ruling = await this.#ruling(context);
    if (ruling?.kind !== "stop") return ruling?.decision;
    const { speech } = this.#dialect;
    const json = jsonOf(data);
    if (speech === undefined || json.kind !== "json") return this.#refusal(ruling);
    const text = spokenText(ruling);
    const { value } = json;
    // Gemini streams an array where nobody asks for events.
    const spoken = Array.isArray(value)
      ? [speech.whole(lastObject(value), text)]
      : speech.whole(isObject(value) ? value : {}, text);
    return replaceFrame(ruling.reason, Buffer.from(JSON.stringify(spoken)), ruling.details);
  }

  async #wholeStream(
    context: RequestContext,
    frames: readonly StreamFrame[],
  ): Promise<Decision | undefined> {
    const passed: Buffer[] = [];
    const held: WrittenFrame[] = [];
    for (const { raw, data: said, event } of frames) {
      const data = Buffer.from(said ?? "");
      const problem = this.#read(context, { event: event ?? "", data, last: false });
      if (problem !== undefined) return this.#unreadable(problem);
      if (this.#calls.size === 0) passed.push(raw);
      else if (said !== undefined) held.push({ event, data });
    }
    const ruling = await this.#ruling(context);
    if (ruling?.kind !== "stop") return ruling?.decision;
    const kind = frames[0]?.kind ?? "sse";
    const instead = this.#spokenFrames(held, ruling)?.map((frame) => writeFrame(kind, frame));
    return instead === undefined
      ? this.#refusal(ruling)
      : replaceFrame(ruling.reason, Buffer.concat([...passed, ...instead]), ruling.details);
  }

  #spokenFrames(
    held: readonly WrittenFrame[],
    ruling: Extract<Ruling, { kind: "stop" }>,
  ): readonly WrittenFrame[] | undefined {
    const { speech } = this.#dialect;
    if (speech === undefined) return undefined;
    const events: DialectEvent[] = [];
    const others: WrittenFrame[] = [];
    for (const frame of held) {
      const json = jsonOf(frame.data);
      if (json.kind === "json" && isObject(json.value)) {
        events.push({ event: frame.event, body: json.value });
      } else if (frame.data.length > 0) others.push(frame);
    }
    const spoken = speech.events(events, spokenText(ruling)).map(({ event, body }) => ({
      event,
      data: Buffer.from(JSON.stringify(body)),
    }));
    // `[DONE]` is no JSON.
    return [...spoken, ...others];
  }

  #unreadable(problem: string): Decision | undefined {
    const ruling = this.#judge.unparsable(problem);
    return ruling.kind === "pass"
      ? ruling.decision
      : this.#refusal(ruling, "upstream.bad-response");
  }

  #refusal(
    { reason, message, details }: Extract<Ruling, { kind: "stop" }>,
    code = "sparc.blocked",
  ): Decision {
    return deny(
      reason,
      { code, message, ...(code === "sparc.blocked" ? { status: 403 } : {}) },
      details,
    );
  }
}

function lastObject(values: readonly unknown[]): JsonObject {
  return values.findLast(isObject) ?? {};
}

/** What the model says instead. */
function spokenText({
  action,
  reason,
  message,
  issues,
}: Extract<Ruling, { kind: "stop" }>): string {
  if (action === "reflect") return clarification(issues);
  if (action === "deny") return `Tool call blocked by policy: ${message}`;
  return reason === "no_inference_context"
    ? "Tool call blocked: no conversation context available to verify it."
    : "Tool call blocked: reflection service unavailable.";
}
