/**
 * One call of the Workload API: gRPC over HTTP/2 over a Unix socket, on a connection of its own.
 *
 * Calls are rare (a stream that stays, a token every few minutes), and the agent attests a workload by its connection,
 * so that one for each call costs nothing and leaves nothing to keep in order.
 */
import { once } from "node:events";
import http2, { type ClientHttp2Stream, type IncomingHttpHeaders } from "node:http2";
import { messageOf, ProxyError } from "../../errors.ts";
import { connectUnixSocket } from "../../net/unix-socket.ts";
import { shown } from "../x509-svid.ts";

/** Which call, and what it may cost. */
export interface AgentCall {
  /** Path of the socket. */
  readonly socket: string;
  readonly method: "FetchX509SVID" | "FetchJWTSVID" | "FetchJWTBundles";
  readonly request: Buffer;
  /** Until the whole response is there, or the first message of one that stays. */
  readonly answerMs: number;
  /** More messages follow as long as the agent runs. */
  readonly stays: boolean;
  readonly signal: AbortSignal;
  /** What it throws ends the call and is what the call rejects with. */
  onMessage(this: void, message: Buffer): void;
}

/** As in gRPC's own clients. The bundles of a hundred federated domains fit. */
const maxMessageBytes = 4 * 1024 * 1024;
const frameHeaderBytes = 5;

/** The statuses of gRPC, by their number. */
const statusNames: Readonly<Record<string, string>> = {
  1: "Cancelled",
  2: "Unknown",
  3: "InvalidArgument",
  4: "DeadlineExceeded",
  5: "NotFound",
  7: "PermissionDenied",
  8: "ResourceExhausted",
  12: "Unimplemented",
  13: "Internal",
  14: "Unavailable",
  16: "Unauthenticated",
};

/** Resolves when the agent has ended the call well. Rejects with ProxyError `upstream.unreachable`. */
export async function callAgent(call: AgentCall): Promise<void> {
  try {
    const socket = await connectUnixSocket(call.socket, call.answerMs, call.signal);
    const session = http2.connect("http://localhost", {
      createConnection: () => socket,
      settings: { enablePush: false },
    });
    try {
      await exchange(session, call);
    } finally {
      session.destroy();
      socket.destroy();
    }
  } catch (cause) {
    if (cause instanceof ProxyError && cause.code === "upstream.unreachable") throw cause;
    throw unreachable(messageOf(cause), cause);
  }
}

async function exchange(session: http2.ClientHttp2Session, call: AgentCall): Promise<void> {
  const stop = new AbortController();
  const fail = (error: Error): void => stop.abort(error);
  const path = `unix://${call.socket}`;
  const broke = (error: NodeJS.ErrnoException): void => {
    const what =
      error.code === "ERR_HTTP2_ERROR" ? `${path} does not speak HTTP/2` : "the call failed";
    fail(unreachable(`${what}: ${messageOf(error)}`, error));
  };
  session.on("error", broke);
  session.on("goaway", () => {
    // What was asked before is still answered, but nothing new will come.
    if (call.stays) fail(unreachable("the agent closed the connection"));
  });
  session.on("close", () => fail(unreachable("the agent closed the connection")));
  const late = setTimeout(
    () => fail(unreachable(`the agent at ${path} did not answer in ${call.answerMs} ms`)),
    call.answerMs,
  );
  const abort = (): void => fail(unreachable("the call was given up"));
  call.signal.addEventListener("abort", abort, { once: true });
  try {
    const stream = session.request({
      ":method": "POST",
      ":path": `/SpiffeWorkloadAPI/${call.method}`,
      "content-type": "application/grpc",
      te: "trailers",
      // The specification's guard against requests that a workload was tricked into.
      "workload.spiffe.io": "true",
    });
    stream.on("error", broke);
    stream.end(framed(call.request));
    const frames = new Frames((message) => {
      if (call.stays) clearTimeout(late);
      call.onMessage(message);
    });
    await untilEnd(stream, frames, stop.signal);
  } catch (error) {
    // What broke first says more than the stream that ended by it.
    if (stop.signal.aborted) throw stop.signal.reason;
    throw error;
  } finally {
    clearTimeout(late);
    call.signal.removeEventListener("abort", abort);
  }
}

/** The listeners are there before the first event: a response that is nothing but an error ends as it begins. */
async function untilEnd(
  stream: ClientHttp2Stream,
  frames: Frames,
  signal: AbortSignal,
): Promise<void> {
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
  stream.once("response", (fields) => {
    outcome = fields;
    guard(() => checkHead(fields));
  });
  stream.once("trailers", (fields) => {
    outcome = { ...outcome, ...fields };
  });
  stream.on("data", (chunk: Buffer) => guard(() => frames.push(chunk)));
  await once(stream, "close", { signal });
  if (broken !== undefined) throw broken;
  const code = outcome["grpc-status"];
  if (code === undefined) throw unreachable("the agent broke the call off");
  if (code !== "0") throw refusal(String(code), String(outcome["grpc-message"] ?? ""));
}

function checkHead(fields: IncomingHttpHeaders): void {
  const status = Number(fields[":status"]);
  if (status !== 200) throw unreachable(`the agent answered with HTTP status ${status}`);
  if (!(fields["content-type"] ?? "").startsWith("application/grpc"))
    throw unreachable("the agent did not answer with gRPC");
}

/** Puts messages together that arrive in pieces, and refuses what would fill the memory. */
class Frames {
  readonly #onMessage: (message: Buffer) => void;
  #held: Buffer[] = [];
  #size = 0;

  constructor(onMessage: (message: Buffer) => void) {
    this.#onMessage = onMessage;
  }

  push(chunk: Buffer): void {
    this.#held.push(chunk);
    this.#size += chunk.length;
    for (let length = this.#expected(); this.#size >= length; length = this.#expected()) {
      const whole = Buffer.concat(this.#held);
      const rest = whole.subarray(length);
      this.#held = [rest];
      this.#size = rest.length;
      this.#onMessage(whole.subarray(frameHeaderBytes, length));
    }
  }

  /** The length of the frame that has begun, or of its head while that is not there. */
  #expected(): number {
    if (this.#size < frameHeaderBytes) return frameHeaderBytes;
    // The head can be in pieces, too.
    if ((this.#held[0]?.length ?? 0) < frameHeaderBytes) this.#held = [Buffer.concat(this.#held)];
    const [head] = this.#held;
    if (head === undefined) return frameHeaderBytes;
    if (head[0] !== 0)
      throw unreachable("the agent sent a compressed message, which nobody asked for");
    const length = head.readUInt32BE(1);
    if (length > maxMessageBytes)
      throw unreachable(
        `the agent sent a message of ${length} bytes, and ${maxMessageBytes} are taken`,
      );
    return frameHeaderBytes + length;
  }
}

function framed(message: Buffer): Buffer {
  const head = Buffer.alloc(frameHeaderBytes);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

function refusal(code: string, message: string): ProxyError {
  let words = message;
  try {
    words = decodeURIComponent(message);
  } catch {
    // It is shown as it came.
  }
  const name = Object.hasOwn(statusNames, code) ? statusNames[code] : `status ${shown(code)}`;
  return unreachable(`the agent refused: ${name}${words === "" ? "" : `, ${shown(words)}`}`);
}

function unreachable(message: string, cause?: unknown): ProxyError {
  return new ProxyError("upstream.unreachable", message, { cause });
}
