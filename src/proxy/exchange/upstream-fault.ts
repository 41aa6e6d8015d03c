/** Maps errors of the HTTP client to the codes of the error table. */
import { errors } from "../../upstream/undici.ts";
import { ProxyError } from "../../errors.ts";
import type { Destination } from "../../net/destination.ts";

/** The fault to respond with. Errors that already are ProxyErrors stay as they are. */
export function upstreamFault(error: Error, destination: Destination): ProxyError {
  if (error instanceof ProxyError) return error;
  const because = { cause: error };
  const host = destination.authority;
  if (error instanceof errors.HeadersTimeoutError) {
    return new ProxyError(
      "upstream.timeout",
      `${host} did not answer in time (limits.response_timeout)`,
      because,
    );
  }
  if (error instanceof errors.BodyTimeoutError) {
    return new ProxyError(
      "upstream.timeout",
      `${host} stopped sending its answer (limits.stream_idle_timeout)`,
      because,
    );
  }
  if (error instanceof errors.HeadersOverflowError) {
    return new ProxyError(
      "upstream.bad-response",
      `${host} sent too many headers (limits.max_header_bytes)`,
      because,
    );
  }
  if (isInvalidHttp(error)) {
    return new ProxyError("upstream.bad-response", `${host} did not answer in valid HTTP`, because);
  }
  if (error instanceof TypeError || error instanceof RangeError) {
    // Node refuses to write a field or a status that the protocol of the client cannot carry.
    const message = `${host} sent an answer that cannot be passed on`;
    return new ProxyError("upstream.bad-response", message, because);
  }
  if (error instanceof errors.RequestContentLengthMismatchError) {
    const message = "the request body is not as long as its Content-Length";
    return new ProxyError("request.malformed", message, because);
  }
  if (error instanceof errors.InvalidArgumentError) {
    return new ProxyError("internal.fault", error.message, because);
  }
  return new ProxyError(
    "upstream.reset",
    `${host} closed the connection before its answer was whole`,
    because,
  );
}

/** True when the connection went away before a response, as a kept-alive connection does that its server has closed. */
export function isDropped(fault: Error): boolean {
  // A parent proxy closes its idle connections as well; its fault has the socket's as its cause.
  const isReset = fault instanceof ProxyError && fault.code === "upstream.reset";
  const error = isReset && fault.cause instanceof Error ? fault.cause : fault;
  const { code } = error as NodeJS.ErrnoException;
  if (isInvalidHttp(error)) return false;
  return error instanceof errors.SocketError || code === "ECONNRESET" || code === "EPIPE";
}

function isInvalidHttp(error: Error): boolean {
  return (
    error instanceof errors.HTTPParserError ||
    error instanceof errors.ResponseContentLengthMismatchError ||
    (error instanceof errors.SocketError && /^bad (response|upgrade)/.test(error.message))
  );
}
