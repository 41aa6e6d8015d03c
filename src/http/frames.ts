/** Streams of frames, whatever their format, as those who judge frames read them. */
import { ProxyError } from "../errors.ts";
import { type AwsEvent, AwsEventStreamReader, writeAwsEvent } from "./aws-event-stream.ts";
import { type JsonLine, JsonLineReader } from "./json-lines.ts";
import { type SseFrame, SseReader, writeSseFrame } from "./sse.ts";

/** One frame with its bytes; one without `data` carries nothing to judge. */
export type StreamFrame = SseFrame | AwsEvent | JsonLine;

/** Reads a stream that arrives in chunks of any size; throws ProxyError where it cannot be read. */
export interface FrameReader {
  push(chunk: Uint8Array): readonly StreamFrame[];
  /** The frame that the stream ended in, if any. */
  end(): readonly StreamFrame[];
}

type Maker = (options: { readonly limitBytes: number }) => FrameReader;

const jsonLines: Maker = (options) => new JsonLineReader(options);
const makers: ReadonlyMap<string, Maker> = new Map<string, Maker>([
  ["text/event-stream", (options) => new SseReader(options)],
  ["application/vnd.amazon.eventstream", (options) => new AwsEventStreamReader(options)],
  ["application/x-ndjson", jsonLines],
  ["application/ndjson", jsonLines],
  ["application/jsonl", jsonLines],
]);

/** A reader for bodies of this content type; undefined where it is no stream of frames. */
export function frameReaderFor(
  contentType: string | undefined,
  limitBytes: number,
): FrameReader | undefined {
  const [type = ""] = (contentType ?? "").split(";");
  return makers.get(type.trim().toLowerCase())?.({ limitBytes });
}

/** What whoever judges frames is shown; undefined for comments and bare fields, which carry nothing to judge. */
export function shownOf(
  frame: StreamFrame,
): { readonly event?: string; readonly data: Buffer; readonly last: false } | undefined {
  const { data, event } = frame;
  if (data === undefined) return undefined;
  const known = frame.kind === "sse" ? frame.dataBytes : undefined;
  const bytes = typeof data === "string" ? (known ?? Buffer.from(data)) : data;
  return { data: bytes, last: false, ...(event === undefined ? {} : { event }) };
}

/** The frame with other data; its comments, id and retry stay. */
export function withData(frame: StreamFrame, data: Buffer | undefined): Buffer {
  if (frame.kind !== "sse") {
    if (data === undefined) return Buffer.alloc(0);
    if (frame.kind === "line" && !data.includes("\n"))
      return Buffer.concat([data, Buffer.from("\n")]);
    throw new ProxyError("internal.fault", "a frame of this format cannot be given this data");
  }
  const { comments, event, id, retry } = frame;
  const text = writeSseFrame({
    comments,
    ...(id === undefined ? {} : { id }),
    ...(retry === undefined ? {} : { retry }),
    ...(data === undefined ? {} : { data: data.toString("utf8") }),
    ...(data === undefined || event === undefined ? {} : { event }),
  });
  return Buffer.from(text);
}

/** What a stream is made of: its frames are all of one kind. */
export type FrameKind = StreamFrame["kind"];

/** A frame that nobody sent; its data is one JSON value, or a text of one line. */
export function writeFrame(
  kind: FrameKind,
  { event, data }: { readonly event?: string | undefined; readonly data: Buffer },
): Buffer {
  switch (kind) {
    case "aws":
      return writeAwsEvent(event ?? "", data);
    case "line":
      return Buffer.concat([data, Buffer.from("\n")]);
    case "sse": {
      const text = writeSseFrame({
        data: data.toString("utf8"),
        ...(event === undefined ? {} : { event }),
      });
      return Buffer.from(text);
    }
  }
}
