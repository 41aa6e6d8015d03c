/** One call of gRPC over a session of HTTP/2 that somebody else opened, with one message sent. */
import { once } from "node:events";
import type { ClientHttp2Session, ClientHttp2Stream, IncomingHttpHeaders } from "node:http2";
import { oneLine } from "../http/json-access.ts";

/** Which call, and what it may cost. */
export interface GrpcCall {
  /** `/package.Service/Method` */
  readonly path: string;
  /** Lower-case names; `te` and the content type are set here. */
  readonly metadata: Readonly<Record<string, string>>;
  readonly message: Uint8Array;
  /** A longer message is a fault. */
  readonly maxMessageBytes: number;
  /** Its reason is what the call rejects with. */
  readonly signal: AbortSignal;
  /** What it throws ends the call and is what the call rejects with. */
  onMessage(this: void, message: Buffer): void;
}

/** What the server did in place of a response, as the rest of a sentence that begins with its name. */
export class GrpcFault extends Error {
  override readonly name = "GrpcFault";
  /** The connection was lost before the server had ended the call. */
  readonly isBroken: boolean;

  constructor(message: string, isBroken = false) {
    super(message);
    this.isBroken = isBroken;
  }
}

const frameHeaderBytes = 5;
/** Of a server's own words. */
const maxWordsChars = 200;

/** The statuses of gRPC, by their number. */
const statusNames: Readonly<Record<string, string>> = {
  1: "Cancelled",
  2: "Unknown",
  3: "InvalidArgument",
  4: "DeadlineExceeded",
  5: "NotFound",
  6: "AlreadyExists",
  7: "PermissionDenied",
  8: "ResourceExhausted",
  9: "FailedPrecondition",
  10: "Aborted",
  11: "OutOfRange",
  12: "Unimplemented",
  13: "Internal",
  14: "Unavailable",
  15: "DataLoss",
  16: "Unauthenticated",
};

/** Resolves when the server has ended the call with OK. Rejects with {@link GrpcFault}, or an error of HTTP/2. */
export async function callOver(session: ClientHttp2Session, call: GrpcCall): Promise<void> {
  const stream = session.request({
    ...call.metadata,
    ":method": "POST",
    ":path": call.path,
    "content-type": "application/grpc",
    te: "trailers",
  });
  try {
    const ended = untilEnd(stream, call);
    stream.end(framed(call.message));
    await ended;
  } finally {
    if (!stream.closed) stream.close(cancelCode);
  }
}

/** RFC 9113 section 7: CANCEL. */
const cancelCode = 8;

/** The listeners are there before the first event: a response that is nothing but an error ends as it begins. */
async function untilEnd(stream: ClientHttp2Stream, call: GrpcCall): Promise<void> {
  const frames = new Frames(call);
  let outcome: IncomingHttpHeaders = {};
  let broken: unknown;
  const guard = (run: () => void): void => {
    try {
      run();
    } catch (error) {
      broken ??= error;
      stream.destroy();
    }
  };
  stream.on("error", (error) => (broken ??= error));
  stream.once("response", (fields) => {
    outcome = fields;
    guard(() => checkHead(fields));
  });
  stream.once("trailers", (fields) => {
    outcome = { ...outcome, ...fields };
  });
  stream.on("data", (chunk: Buffer) => guard(() => frames.push(chunk)));
  try {
    await once(stream, "close", { signal: call.signal });
  } catch (error) {
    if (call.signal.aborted) throw call.signal.reason;
    throw broken ?? error;
  }
  if (broken !== undefined) throw broken;
  const code = outcome["grpc-status"];
  if (code === undefined) throw new GrpcFault("broke the call off", true);
  if (code !== "0") throw refusal(String(code), String(outcome["grpc-message"] ?? ""));
  if (frames.hasRest) throw new GrpcFault("ended the call within a message");
}

function checkHead(fields: IncomingHttpHeaders): void {
  const status = Number(fields[":status"]);
  if (status !== 200) throw new GrpcFault(`answered with HTTP status ${status}`);
  if (!(fields["content-type"] ?? "").startsWith("application/grpc"))
    throw new GrpcFault("did not answer with gRPC");
}

/** Puts messages together that arrive in pieces, and refuses what would fill the memory. */
class Frames {
  readonly #call: GrpcCall;
  #held: Buffer[] = [];
  #size = 0;

  constructor(call: GrpcCall) {
    this.#call = call;
  }

  get hasRest(): boolean {
    return this.#size > 0;
  }

  push(chunk: Buffer): void {
    this.#held.push(chunk);
    this.#size += chunk.length;
    for (let length = this.#expected(); this.#size >= length; length = this.#expected()) {
      const whole = Buffer.concat(this.#held);
      const rest = whole.subarray(length);
      this.#held = [rest];
      this.#size = rest.length;
      this.#call.onMessage(whole.subarray(frameHeaderBytes, length));
    }
  }

  /** The length of the frame that has begun, or of its head while that is not there. */
  #expected(): number {
    if (this.#size < frameHeaderBytes) return frameHeaderBytes;
    // The head can be in pieces, too.
    if ((this.#held[0]?.length ?? 0) < frameHeaderBytes) this.#held = [Buffer.concat(this.#held)];
    const [head] = this.#held;
    if (head === undefined) return frameHeaderBytes;
    if (head[0] !== 0) throw new GrpcFault("sent a compressed message, which nobody asked for");
    const length = head.readUInt32BE(1);
    const { maxMessageBytes } = this.#call;
    if (length > maxMessageBytes)
      throw new GrpcFault(`sent a message of ${length} bytes, and ${maxMessageBytes} are taken`);
    return frameHeaderBytes + length;
  }
}

function framed(message: Uint8Array): Buffer {
  const head = Buffer.alloc(frameHeaderBytes);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

function refusal(code: string, message: string): GrpcFault {
  let words = message;
  try {
    words = decodeURIComponent(message);
  } catch {
    // It is shown as it came.
  }
  const name = Object.hasOwn(statusNames, code)
    ? statusNames[code]
    : `status ${oneLine(code, maxWordsChars)}`;
  return new GrpcFault(
    `refused: ${name}${words === "" ? "" : `, ${oneLine(words, maxWordsChars)}`}`,
  );
}
