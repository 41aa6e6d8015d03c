/** Streams of frames and messages: what is read does not depend on how the network cut it. */
import { BodyBudget } from "../../src/http/body.ts";
import { type FrameReader, frameReaderFor, type StreamFrame } from "../../src/http/frames.ts";
import { clientFrame, closeFrame, FrameBoundary } from "../../src/http/web-socket-frame.ts";
import { WebSocketReader } from "../../src/http/web-socket-reader.ts";
import { ProxyError } from "../../src/errors.ts";
import { awsEvent, awsMessage } from "../support/aws-event-stream.ts";
import { inPieces } from "../support/mutation.ts";
import { caught, type Found, splitProblem, streamProblem, type Target, texts } from "./target.ts";

const limitBytes = 4_096;

/** Data of every frame, or the words of the refusal; a line that ends early in pieces is the same line. */
function framesOf(contentType: string, chunks: readonly Buffer[]): Found {
  const reader = frameReaderFor(contentType, limitBytes) as FrameReader;
  const found: unknown[] = [];
  const read = caught(() => {
    for (const chunk of chunks) for (const frame of reader.push(chunk)) found.push(told(frame));
    for (const frame of reader.end()) found.push(told(frame));
  }, ProxyError);
  return { items: found, isRefused: "refusal" in read };
}

function told(frame: StreamFrame): unknown {
  return [frame.event ?? null, frame.data === undefined ? null : frame.data.toString()];
}

/** What WHATWG HTML section 9.2 makes of a stream that is all there: the data of its frames. */
function dispatched(text: string): readonly string[] {
  const found: string[] = [];
  let data: string[] = [];
  const lines = text.replace(/^\uFEFF/, "").split(/\r\n|\n|\r/);
  // What stands behind the last line end is no line.
  for (const line of lines.slice(0, -1)) {
    if (line === "") {
      if (data.length > 0) found.push(data.join("\n"));
      data = [];
    }
    const [, name = line, value = ""] = /^([^:]*):? ?([^]*)$/.exec(line) ?? [];
    if (name === "data" && !line.startsWith(":")) data.push(value);
  }
  return found;
}

function frameTarget(
  name: string,
  contentType: string,
  rest: Pick<Target, "seeds" | "words" | "covers">,
): Target {
  return {
    name,
    ...rest,
    check(bytes, dice) {
      const whole = framesOf(contentType, [bytes]);
      const outcome = `${Math.min(3, whole.items.length)} ${String(whole.isRefused)}`;
      return {
        outcome,
        problem: streamProblem(whole, framesOf(contentType, inPieces(bytes, dice))),
      };
    },
  };
}

const plainSse = frameTarget("event-stream", "text/event-stream", {
  covers: ["/src/http/sse.ts"],
  seeds: texts(
    "data: a\n\n",
    "\uFEFFevent: x\r\ndata: a\r\ndata: b\r\nid: 1\r\nretry: 5\r\n\r\n: comment\r\rdata\r\r",
    "data:a\ndata:\n\nid\n\ndata: last",
    "retry: x\ndata: \u00e9\n\n",
  ),
  words: [
    "\n",
    "\r",
    "\r\n",
    "\n\n",
    "data: ",
    "data:",
    "event: x\n",
    "id: ",
    "retry: 1\n",
    ": c\n",
    "\xef\xbb\xbf",
    "\xff",
  ],
});

/** Also against the algorithm of the specification, for streams that are not refused. */
const sse: Target = {
  ...plainSse,
  async check(bytes, dice) {
    const finding = await plainSse.check(bytes, dice);
    if (finding.problem !== undefined || finding.outcome.endsWith("true")) return finding;
    const ours = framesOf("text/event-stream", [bytes]).items as [unknown, string | null][];
    const data = ours.flatMap(([, text]) => text ?? []);
    const wanted = dispatched(bytes.toString());
    // A frame that the stream ends in is dropped by the specification, and shown to whoever judges.
    const same = JSON.stringify(data.slice(0, wanted.length)) === JSON.stringify(wanted);
    const isMore = data.length > wanted.length + 1;
    return same && !isMore
      ? finding
      : {
          ...finding,
          problem: `frames ${JSON.stringify(data)}, by the specification ${JSON.stringify(wanted)}`,
        };
  },
};

const aws = frameTarget("aws-event-stream", "application/vnd.amazon.eventstream", {
  covers: ["/src/http/aws-event-stream.ts"],
  seeds: [
    awsEvent("contentBlockDelta", { delta: { text: "a" } }),
    Buffer.concat([awsEvent("a", {}), awsEvent("b", { c: 1 })]),
    awsMessage({ ":message-type": "exception", ":exception-type": "x" }, "no"),
  ],
  words: ["\0", "\xff\xff\xff\xff", ":event-type", ":message-type", "\x07", "\0\0\0\x10"],
});

const jsonLines = frameTarget("json-lines", "application/x-ndjson", {
  covers: ["/src/http/json-lines.ts"],
  seeds: texts('{"a":1}\n{"b":2}\n', '{"a":"\\n"}\r\n\r\n[1]', "\n\n", '{"a":'),
  words: ["\n", "\r\n", "{", "}", '"', "\\", "[1]", "\xff", " ".repeat(64)],
});

const maxMessageBytes = 2_048;

function messagesOf(chunks: readonly Buffer[]): {
  readonly found: unknown[];
  readonly problem?: string;
} {
  const budget = new BodyBudget(maxMessageBytes * 2);
  const reader = new WebSocketReader({ maxMessageBytes, budget });
  const found: unknown[] = [];
  for (const chunk of chunks) {
    reader.push(chunk);
    for (let item = reader.next(); item !== undefined; item = reader.next()) {
      found.push(
        item.kind === "fault" ? ["fault"] : [item.kind, Buffer.from(item.data).toString("hex")],
      );
      reader.release();
      if (item.kind === "fault") return { found };
    }
    if (budget.usedBytes > maxMessageBytes)
      return { found, problem: `holds ${budget.usedBytes} bytes` };
  }
  reader.release();
  return budget.usedBytes === 0 ? { found } : { found, problem: `keeps ${budget.usedBytes} bytes` };
}

const webSocket: Target = {
  name: "web-socket",
  covers: ["/src/http/web-socket"],
  seeds: [
    clientFrame(1, Buffer.from("hello")),
    clientFrame(2, Buffer.alloc(200, 1)),
    Buffer.concat([clientFrame(9, Buffer.from("p")), clientFrame(1, Buffer.from("\u00e9"))]),
    closeFrame("client", 1_000, "bye"),
    Buffer.concat([
      Buffer.of(0x01, 0x81, 1, 2, 3, 4, 0x60),
      Buffer.of(0x80, 0x81, 1, 2, 3, 4, 0x60),
    ]),
    Buffer.concat([Buffer.of(0x81, 0xff), Buffer.alloc(12)]),
  ],
  words: [
    "\x81",
    "\x01",
    "\x80",
    "\x00",
    "\x89\x80",
    "\x88\x82",
    "\xfe",
    "\xff",
    "\x7e",
    "\x7f",
    "\xc1",
    "\x03\xe8",
  ],
  check(bytes, dice) {
    const whole = messagesOf([bytes]);
    const parts = messagesOf(inPieces(bytes, dice));
    const [once, often] = [new FrameBoundary(), new FrameBoundary()];
    once.pass(bytes);
    for (const piece of inPieces(bytes, dice)) often.pass(piece);
    const last = (whole.found.at(-1) as string[] | undefined)?.[0] ?? "nothing";
    const outcome = `${Math.min(3, whole.found.length)} ${last}`;
    const counted = splitProblem(
      [once.messages, once.isBetweenFrames],
      [often.messages, often.isBetweenFrames],
    );
    return {
      outcome,
      problem: whole.problem ?? parts.problem ?? counted ?? splitProblem(whole.found, parts.found),
    };
  },
};

export const targets: readonly Target[] = [sse, aws, jsonLines, webSocket];
