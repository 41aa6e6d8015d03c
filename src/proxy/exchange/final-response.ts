/** The last response on a connection that no parser serves any more, and the response to bytes that are not HTTP. */
import type { ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import type { Denial } from "../../pipeline/decision.ts";
import { rawReply, renderDenial } from "../flow/reply.ts";

/** How long a client may take to read a last response and to close. */
export const lingerMs = 2_000;

/** Sends a refusal and closes, also when the client keeps its side open. */
export function sendFinalResponse(socket: Duplex, denial: Denial): void {
  socket.on("error", ignore);
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  socket.end(rawReply(renderDenial(denial)));
  // Unread bytes at close make the kernel reset the connection before the client has read the response.
  socket.resume();
  const timer = setTimeout(() => socket.destroy(), lingerMs);
  timer.unref();
  socket.once("close", () => clearTimeout(timer));
}

/** Connections that are refused: further errors on them are not reported again. */
const refused = new WeakSet<Duplex>();

/**
 * Responds to an error of the HTTP parser or a time-out, and returns the denial; undefined where one was sent before.
 *
 * `latest` is the newest response of the connection.
 */
export function respondToClientError(
  error: NodeJS.ErrnoException,
  socket: Duplex,
  latest: ServerResponse | undefined,
): Denial | undefined {
  if (refused.has(socket)) return undefined;
  refused.add(socket);
  const denial = denialOfParser(error);
  if (error.code === "ECONNRESET") {
    socket.on("error", ignore);
    socket.destroy();
  } else {
    answerInTurn(socket, denial, latest);
  }
  return denial;
}

/**
 * Sends a refusal and closes once the responses to earlier requests have left (RFC 9112 section 9.3.2).
 *
 * `latest` is the newest response of the connection. The refusal must not replace or interrupt it: the client would
 * misread it.
 */
function answerInTurn(socket: Duplex, denial: Denial, latest: ServerResponse | undefined): void {
  if (latest === undefined || latest.writableFinished || isUnfinishedRequest(latest)) {
    sendFinalResponse(socket, denial);
    return;
  }
  socket.on("error", ignore);
  const answer = (): void => {
    // A response that was the last one has ended the connection itself.
    if (socket.writable) sendFinalResponse(socket, denial);
  };
  // A queued response whose own request is broken is never sent: the refusal takes its place.
  if (latest.socket === null && !latest.req.complete) latest.prependOnceListener("socket", answer);
  else latest.once("close", answer);
}

/** True when the request that the response belongs to is the one that broke. */
function isUnfinishedRequest(response: ServerResponse): boolean {
  return response.socket !== null && !response.headersSent && !response.req.complete;
}

function denialOfParser(error: NodeJS.ErrnoException): Denial {
  if (error.code === "HPE_HEADER_OVERFLOW") {
    return {
      code: "request.headers-too-large",
      message: "the header section is larger than limits.max_header_bytes",
    };
  }
  if (error.code === "ERR_HTTP_REQUEST_TIMEOUT") {
    return {
      code: "request.timeout",
      message: "the request did not arrive in time (limits.header_timeout)",
    };
  }
  if (error.code === "HPE_PAUSED_H2_UPGRADE") {
    return {
      code: "request.malformed",
      message:
        "HTTP/2 with prior knowledge (RFC 9113 section 3.3) is not served: only TLS can negotiate it",
    };
  }
  const reason = (error as { reason?: string }).reason;
  return {
    code: "request.malformed",
    message: reason === undefined ? "malformed request" : `malformed request: ${reason}`,
  };
}

function ignore(): void {
  // The connection is being closed anyway.
}
