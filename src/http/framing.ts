/**
 * Framing: the ambiguities of a message head that two recipients could read as two different messages.
 *
 * llhttp refuses most of them; this is the second look that does not depend on parser flags (RFC 9112 section 11.2).
 */
import { isFieldValue, isSameName, isToken } from "./headers.ts";

/** The parts of a request or response head that decide its framing. */
export interface MessageHead {
  readonly rawHeaders: readonly string[];
  /** "1.0", "1.1" or "2.0", as node:http gives it. */
  readonly httpVersion: string;
  /** The method of a request; undefined for a response, which has no Host. */
  readonly method?: string | undefined;
}

/** Why a message cannot be forwarded. */
export interface FramingProblem {
  readonly code: "request.malformed";
  readonly message: string;
}

/** Fields that no sender may declare hop-by-hop (RFC 9110 section 7.6.1): the next recipient would lose them. */
const endToEnd = /(?:^|[\s,])(?:host|content-length|transfer-encoding)(?:[\s,]|$)/i;

/** Says what is ambiguous about a message head, or undefined when every recipient must read it alike. */
export function framingProblem(head: MessageHead): FramingProblem | undefined {
  let hosts = 0;
  let length: string | undefined;
  let coding: string | undefined;
  const { rawHeaders } = head;
  for (let at = 0; at < rawHeaders.length; at += 2) {
    const name = rawHeaders[at] ?? "";
    const value = rawHeaders[at + 1] ?? "";
    if (!isFieldValue(value)) {
      return problem("a header value has a control character or a folded line");
    }
    switch (name.length) {
      case 4:
        hosts += isSameName(name, "host") ? 1 : 0;
        break;
      case 10:
        if (isDamaging(head, name, value)) {
          return problem("Connection names a field that frames or routes the message");
        }
        break;
      case 14:
        if (isSameName(name, "content-length")) {
          if (!/^[0-9]{1,15}$/.test(value)) {
            return problem("Content-Length is not one decimal number");
          }
          if (length !== undefined && length !== value) {
            return problem("Content-Length is given twice with different values");
          }
          length = value;
        }
        break;
      case 17:
        if (isSameName(name, "transfer-encoding")) {
          if (coding !== undefined) {
            return problem("Transfer-Encoding is given twice");
          }
          coding = value;
        }
        break;
      default:
    }
    if (!isToken(name)) {
      return problem("a header name is not a token");
    }
  }
  return hostProblem(head, hosts) ?? codingProblem(head, coding, length);
}

function isDamaging({ method }: MessageHead, name: string, value: string): boolean {
  return method !== undefined && isSameName(name, "connection") && endToEnd.test(value);
}

function problem(message: string): FramingProblem {
  return { code: "request.malformed", message };
}

/** RFC 9112 section 3.2: exactly one Host in HTTP/1.1; HTTP/2 may carry :authority instead. */
function hostProblem(head: MessageHead, hosts: number): FramingProblem | undefined {
  if (head.method === undefined) {
    return undefined;
  }
  if (hosts > 1) {
    return problem("request has more than one Host");
  }
  return hosts === 0 && head.httpVersion === "1.1" ? problem("request has no Host") : undefined;
}

/** RFC 9112 sections 6.1 and 6.3. Only "chunked" is understood, so any other coding is refused rather than passed. */
function codingProblem(
  head: MessageHead,
  coding: string | undefined,
  length: string | undefined,
): FramingProblem | undefined {
  if (coding === undefined) {
    return undefined;
  }
  if (length !== undefined) {
    return problem("message has both Content-Length and Transfer-Encoding");
  }
  if (head.httpVersion === "1.0") {
    return problem("HTTP/1.0 message has Transfer-Encoding");
  }
  if (head.httpVersion !== "1.1") {
    return problem("HTTP/2 message has Transfer-Encoding");
  }
  return isSameName(coding, "chunked") ? undefined : problem("Transfer-Encoding is not chunked");
}
