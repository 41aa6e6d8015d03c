/**
 * One call of the Workload API: gRPC over HTTP/2 over a Unix socket, on a connection of its own.
 *
 * Calls are rare (a stream that stays, a token every few minutes), and the agent attests a workload by its connection,
 * so that one for each call costs nothing and leaves nothing to keep in order.
 */
import http2 from "node:http2";
import { messageOf, ProxyError } from "../../errors.ts";
import { callOver, GrpcFault } from "../../grpc/call.ts";
import { connectUnixSocket } from "../../net/unix-socket.ts";

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
  const brokenBy = (error: NodeJS.ErrnoException): ProxyError => {
    const what =
      error.code === "ERR_HTTP2_ERROR" ? `${path} does not speak HTTP/2` : "the call failed";
    return unreachable(`${what}: ${messageOf(error)}`, error);
  };
  session.on("error", (error) => fail(brokenBy(error)));
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
    await callOver(session, {
      path: `/SpiffeWorkloadAPI/${call.method}`,
      // The specification's guard against requests that a workload was tricked into.
      metadata: { "workload.spiffe.io": "true" },
      message: call.request,
      maxMessageBytes,
      signal: stop.signal,
      onMessage: (message) => {
        if (call.stays) clearTimeout(late);
        call.onMessage(message);
      },
    });
  } catch (error) {
    // What broke first says more than the stream that ended by it.
    if (stop.signal.aborted) throw stop.signal.reason;
    if (error instanceof GrpcFault) throw unreachable(`the agent ${error.message}`, error);
    const isOfHttp2 = String((error as NodeJS.ErrnoException).code).startsWith("ERR_HTTP2");
    throw isOfHttp2 ? brokenBy(error as NodeJS.ErrnoException) : error;
  } finally {
    clearTimeout(late);
    call.signal.removeEventListener("abort", abort);
  }
}

function unreachable(message: string, cause?: unknown): ProxyError {
  return new ProxyError("upstream.unreachable", message, { cause });
}
