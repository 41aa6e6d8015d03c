/** A request as it is sent to an origin: its head, and how its body is framed (RFC 9112 sections 3, 5 and 6). */
import type { BodySink } from "../http/body-source.ts";
import { isSameName } from "../http/headers.ts";
import { ClientFault } from "./client-fault.ts";

/** A body that is pushed. */
export interface ClientBody {
  open(sink: BodySink): void;
  /** Goes on after the sink would take nothing more. */
  resume(): void;
  /** Gives nothing more to this sink, if it is the open one. */
  detach(sink: BodySink): void;
}

/** One request; the list of fields is flat. */
export interface ClientRequest {
  readonly method: string;
  /** The target as it stands in the request line. */
  readonly path: string;
  readonly headers: readonly string[];
  readonly body: Buffer | ClientBody | null;
  /** Protocols for an `Upgrade`. */
  readonly upgrade?: string | undefined;
}

/** A head without the field that frames a streamed body, and without its empty line. */
export class OutgoingHead {
  readonly text: string;
  /** Content-Length, where the fields have one. */
  readonly length: number | undefined;
  /** The connection is asked to carry no further request. */
  readonly closes: boolean;

  /** Throws ClientFault. */
  constructor(request: ClientRequest) {
    const { method, path, headers, body, upgrade } = request;
    let fields = "";
    // Those of the request line, Host and Connection.
    let lines = upgrade === undefined ? 3 : 4;
    let host: string | undefined;
    let length: string | undefined;
    for (let at = 0; at < headers.length; at += 2) {
      const name = headers[at] ?? "";
      const value = headers[at + 1] ?? "";
      const kind = kindOf(name);
      if (kind === "own") continue;
      if (kind === "framing") throw unsendable(`a field of the connection, ${name}`);
      if (kind === "host") {
        if (host !== undefined) throw unsendable("more than one Host");
        host = value;
        continue;
      }
      if (kind === "length") {
        if (length !== undefined) throw unsendable("more than one Content-Length");
        length = value;
      }
      fields += `${name}: ${value}\r\n`;
      lines += 1;
    }
    if (host === undefined) throw unsendable("no Host");
    // A server may leave unread what it does not expect, and would take it for the next request; nor is it certain that
    // nothing follows the response to a HEAD, or that one who refuses an upgrade still speaks HTTP.
    const isDoubtful = isContent(body) && !expectsContent(method);
    this.closes = upgrade !== undefined || method === "HEAD" || isDoubtful;
    const connection = connectionFields(upgrade, this.closes);
    this.text = `${method} ${path} HTTP/1.1\r\nhost: ${host}\r\n${connection}${fields}`;
    if (!sendable.test(this.text) || linesOf(this.text) !== lines)
      throw unsendable("a character that its place cannot have");
    this.length = length === undefined ? undefined : lengthOf(length, body);
  }
}

function connectionFields(upgrade: string | undefined, closes: boolean): string {
  if (upgrade !== undefined) return `connection: upgrade\r\nupgrade: ${upgrade}\r\n`;
  return closes ? "connection: close\r\n" : "connection: keep-alive\r\n";
}

function lengthOf(field: string, body: ClientRequest["body"]): number {
  if (!/^[0-9]{1,15}$/.test(field)) throw unsendable("a Content-Length that is no number");
  const length = Number(field);
  const isOther = body === null ? length > 0 : Buffer.isBuffer(body) && body.length !== length;
  if (isOther) throw wrongLength();
  return length;
}

/** Whether the method gives content a meaning (RFC 9110 section 9.3). */
export function expectsContent(method: string): boolean {
  switch (method) {
    case "POST":
    case "PUT":
    case "PATCH":
    case "QUERY":
    case "PROPFIND":
    case "PROPPATCH":
      return true;
    default:
      return false;
  }
}

/** The fault of a body that is not as long as its Content-Length. */
export function wrongLength(): ClientFault {
  return new ClientFault("request-length", "the request body is not as long as its Content-Length");
}

function linesOf(text: string): number {
  let lines = 0;
  for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", at + 1)) lines += 1;
  return lines;
}

/** Whether each line is one; that there are no more than there should be has to be seen as well. */
const sendable =
  /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+ [\x21-\xff]+ HTTP\/1\.1\r\n(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*\r\n)+$/;

function isContent(body: ClientRequest["body"]): boolean {
  return body !== null && (!Buffer.isBuffer(body) || body.length > 0);
}

function unsendable(what: string): ClientFault {
  return new ClientFault("unsendable", `the request has ${what}`);
}

type FieldKind = "host" | "length" | "own" | "framing" | "other";

/** Most fields are told by their length alone. */
function kindOf(name: string): FieldKind {
  switch (name.length) {
    case 4:
      return isSameName(name, "host") ? "host" : "other";
    case 6:
      return isSameName(name, "expect") ? "framing" : "other";
    case 7:
      return isSameName(name, "upgrade") ? "framing" : "other";
    case 10:
      if (isSameName(name, "connection")) return "own";
      return isSameName(name, "keep-alive") ? "framing" : "other";
    case 14:
      return isSameName(name, "content-length") ? "length" : "other";
    case 17:
      return isSameName(name, "transfer-encoding") ? "framing" : "other";
    default:
      return "other";
  }
}
