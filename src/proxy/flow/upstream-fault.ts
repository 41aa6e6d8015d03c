/** Maps errors of the HTTP client to the codes of the error table. */
import { ProxyError } from "../../errors.ts";
import type { Destination } from "../../net/destination.ts";
import { ClientFault } from "../../wire/client-fault.ts";
import { MalformedMessage } from "../../wire/malformed.ts";

/** The fault to respond with. Errors that already are ProxyErrors stay as they are. */
export function upstreamFault(error: Error, destination: Destination): ProxyError {
  if (error instanceof ProxyError) return error;
  const because = { cause: error };
  const host = destination.authority;
  if (error instanceof ClientFault) return clientFault(error, host);
  if (error instanceof MalformedMessage) {
    const what =
      error.kind === "too-large" || error.kind === "too-many-fields"
        ? "sent too many headers (limits.max_header_bytes)"
        : "did not answer in valid HTTP";
    return new ProxyError("upstream.bad-response", `${host} ${what}`, because);
  }
  if (error instanceof TypeError || error instanceof RangeError) {
    // Node refuses to write a field or a status that the protocol of the client cannot carry.
    const message = `${host} sent an answer that cannot be passed on`;
    return new ProxyError("upstream.bad-response", message, because);
  }
  return closedEarly(error, host);
}

/** True when the connection went away before a response, as a kept-alive connection does that its server has closed. */
export function isDropped(fault: Error): boolean {
  // A parent proxy closes its idle connections as well; its fault has the connection's as its cause.
  const isReset = fault instanceof ProxyError && fault.code === "upstream.reset";
  const error = isReset && fault.cause instanceof Error ? fault.cause : fault;
  return error instanceof ClientFault && error.kind === "closed";
}

function clientFault(error: ClientFault, host: string): ProxyError {
  const because = { cause: error };
  switch (error.kind) {
    case "response-timeout":
      return new ProxyError(
        "upstream.timeout",
        `${host} did not answer in time (limits.response_timeout)`,
        because,
      );
    case "idle-timeout":
      return new ProxyError(
        "upstream.timeout",
        `${host} stopped sending its answer (limits.stream_idle_timeout)`,
        because,
      );
    case "request-length":
      return new ProxyError("request.malformed", error.message, because);
    case "unsendable":
      return new ProxyError("internal.fault", error.message, because);
    case "closed":
      return closedEarly(error, host);
  }
}

function closedEarly(cause: Error, host: string): ProxyError {
  const message = `${host} closed the connection before its answer was whole`;
  return new ProxyError("upstream.reset", message, { cause });
}
