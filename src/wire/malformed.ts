/** What is wrong with the bytes of a peer. */
import { ProxyError } from "../errors.ts";

/** Why a message cannot be read. */
export type MalformedKind =
  /** Not what RFC 9112 has, or what two recipients could read as two different messages. */
  | "syntax"
  /** A head, or a trailer section, with more bytes than the limit. */
  | "too-large"
  /** More field lines than the limit. */
  | "too-many-fields"
  /** A protocol other than HTTP/1. */
  | "version";

/** A message that cannot be read; nothing behind it on its connection can be either. */
export class MalformedMessage extends Error {
  override readonly name = "MalformedMessage";
  readonly kind: MalformedKind;

  constructor(message: string, kind: MalformedKind = "syntax") {
    super(message);
    this.kind = kind;
  }
}

/** The fault to respond with to a client whose bytes cannot be read. */
export function malformedRequest({ kind, message }: MalformedMessage): ProxyError {
  switch (kind) {
    case "too-large":
    case "too-many-fields":
      return new ProxyError("request.headers-too-large", message);
    case "syntax":
    case "version":
      return new ProxyError("request.malformed", message);
  }
}
