/** What can go wrong on a connection to an origin, besides a response that cannot be read. */

/** Why a request has no whole response. */
export type ClientFaultKind =
  /** Not a byte of the head came in time, or not its end. */
  | "response-timeout"
  /** Nothing more of a body came in time. */
  | "idle-timeout"
  /** The connection ended. */
  | "closed"
  /** The body of the request is not as long as its head says. */
  | "request-length"
  /** The request is none that HTTP/1.1 can carry: a fault of our own. */
  | "unsendable";

/** The fault of one request. */
export class ClientFault extends Error {
  override readonly name = "ClientFault";
  readonly kind: ClientFaultKind;

  constructor(kind: ClientFaultKind, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.kind = kind;
  }
}
