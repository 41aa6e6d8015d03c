/** What inference-parser records of a call, driven hook by hook. */
import { frameReaderFor } from "../../src/http/frames.ts";
import type { InferenceView } from "../../src/protocols/inference-view.ts";
import type { RequestContext } from "../../src/pipeline/context.ts";
import type { Decision } from "../../src/pipeline/decision.ts";
import { inferenceParser } from "../../src/plugins/parsers/inference.ts";
import { answered, message, PluginBench } from "./plugin-bench.ts";

/** A call and what came of it. */
export interface RecordedCall {
  readonly context: RequestContext;
  readonly request: InferenceView | undefined;
  readonly view: InferenceView | undefined;
  readonly said: readonly (Decision | undefined)[];
}

/** What an answer is made of. */
export interface GivenAnswer {
  readonly type?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** A whole body. */
  readonly body?: object | string;
  /** Events of a stream: an object goes as JSON, a pair is a name and its data. */
  readonly events?: readonly (object | string | readonly [string, object])[];
  /** Bytes of a stream, read as its content type says. */
  readonly stream?: Buffer;
  /** The client left: the stream has no end. */
  readonly cut?: true;
}

/** Runs one call through a parser. */
export async function record(
  path: string,
  body: object | string | undefined,
  answer: GivenAnswer = {},
  host = "api.example.com",
  headers: Readonly<Record<string, string>> = {},
): Promise<RecordedCall> {
  const plugin = inferenceParser.create({ endpoints: [] }, new PluginBench().deps);
  const to = `${host}:80`;
  const context = message({ path, to, headers, ...(body === undefined ? {} : { body }) });
  const said = [await plugin.onRequest?.(context)];
  const request = context.facts.get("inference") as InferenceView | undefined;
  if (plugin.wantsAnswer?.(context) === true) {
    const type =
      answer.type ?? (answer.events === undefined ? "application/json" : "text/event-stream");
    answered(context, type, answer.headers);
    for (const frame of framesOf(type, answer)) said.push(await plugin.onFrame?.(context, frame));
  }
  const view = context.facts.get("inference") as InferenceView | undefined;
  return { context, request, view, said };
}

function framesOf(
  type: string,
  answer: GivenAnswer,
): { readonly event?: string; readonly data: Buffer; readonly last: boolean }[] {
  const { body, events, stream } = answer;
  const end = answer.cut === true ? [] : [{ data: Buffer.alloc(0), last: true }];
  if (stream !== undefined) {
    const reader = frameReaderFor(type, 1 << 20);
    const frames = [...(reader?.push(stream) ?? []), ...(reader?.end() ?? [])];
    const read = frames.map(({ data = "", event }) => ({
      data: Buffer.from(data),
      last: false,
      ...(event === undefined ? {} : { event }),
    }));
    return [...read, ...end];
  }
  if (events === undefined) {
    return body === undefined ? end : [{ data: bytes(body), last: true }];
  }
  const frames = events.map((event) =>
    Array.isArray(event)
      ? { event: event[0] as string, data: bytes(event[1] as object), last: false }
      : { data: bytes(event), last: false },
  );
  return [...frames, ...end];
}

function bytes(value: object | string): Buffer {
  return Buffer.from(typeof value === "string" ? value : JSON.stringify(value));
}
