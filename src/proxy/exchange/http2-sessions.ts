/** HTTP/2 with clients, of whichever surface, inside TLS or by prior knowledge: every stream is judged for itself. */
import { randomBytes } from "node:crypto";
import http2, { type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { ProxyError } from "../../errors.ts";
import { HeaderList, isToken, stripHopByHop } from "../../http/headers.ts";
import { originForm, parseHostHeader } from "../../net/destination.ts";
import type { WatchedHead } from "../../net/head-watch.ts";
import type { Reply } from "../../pipeline/decision.ts";
import type { Client } from "../../pipeline/flow.ts";
import type { RefusedHead } from "../flow/finish.ts";
import type { Runtime } from "../flow/runtime.ts";
import {
  arrive,
  downstreamLimits,
  replyAlone,
  type Route,
  type SurfaceServices,
} from "./arrival.ts";
import type { HttpLimits } from "./http-server.ts";
import { Http2Downstream } from "./http2-downstream.ts";
import { checkMethod } from "./request-head.ts";
import { streamUpgrade } from "./upgrade.ts";

/** The parts of a stream's head that a surface reads its target from. */
export interface StreamTarget {
  /** Path and query, byte for byte. */
  readonly path: string;
  /** The authority as the client spelt it; it parses. */
  readonly host: string;
  readonly stream: Pick<ServerHttp2Stream, "destroy">;
  /** The Proxy-Authorization field. */
  readonly credentials: string | undefined;
}

/** A stream that asks for a tunnel, unread. */
export interface ConnectStream {
  readonly stream: ServerHttp2Stream;
  readonly fields: Fields;
  readonly raw: readonly string[];
  readonly maxHeaders: number;
}

/** Where a stream goes, and who is behind it. */
type StreamRoute = Omit<Route, "client"> & { readonly client: Client | Promise<Client> };

/** One connection of a surface, and how the surface reads what its streams ask for. */
export interface Http2Surface extends Omit<RefusedHead, "method"> {
  /** Throws ProxyError for a target that the surface refuses. */
  route(this: void, target: StreamTarget, runtime: Runtime): StreamRoute;
  /** The scheme of what its streams ask for, where it is not that of the connection. */
  readonly scheme?: Scheme;
  /** Serves a CONNECT; without it the surface refuses them. */
  readonly connect?: (this: void, asked: ConnectStream) => void;
  /** Set where the connection was refused: the response to each of its requests; the target is unparsed. */
  readonly refuse?: ((this: void, method: string, target: string) => Reply) | undefined;
  /** Called with the session, which `close` ends after its streams. */
  readonly onOpen?: ((this: void, session: Pick<ServerHttp2Session, "close">) => void) | undefined;
}

type Scheme = "http" | "https";

type Fields = Readonly<Record<string, string | string[] | undefined>>;

interface Parsed {
  readonly path: string;
  readonly host: string;
  readonly headers: HeaderList;
}

/** More abusive frames of one kind than this and the session is closed (RFC 9113 section 10.5). */
const maxNuisances = 100;

interface OpenSession {
  /** Open streams. */
  streams: number;
  /** Without streams a client needs to send little but the head of one. */
  readonly head: WatchedHead;
}

/** The HTTP/2 sessions of one surface. */
export class Http2Sessions {
  readonly #services: SurfaceServices;
  readonly #limits: HttpLimits;
  readonly #surfaceOf: (clear: Socket) => Http2Surface;
  readonly #sessions = new Map<ServerHttp2Session, OpenSession>();

  constructor(
    services: SurfaceServices,
    limits: HttpLimits,
    surfaceOf: (clear: Socket) => Http2Surface,
  ) {
    this.#services = services;
    this.#limits = limits;
    this.#surfaceOf = surfaceOf;
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#sessions.size;
  }

  /** Serves a connection on which h2 was negotiated, or that began with the preface of HTTP/2 (RFC 9113 section 3.3). */
  serve(clear: Socket): void {
    const surface = this.#surfaceOf(clear);
    const scheme = surface.scheme ?? (clear instanceof TLSSocket ? "https" : "http");
    const session = http2.performServerHandshake(clear, {
      maxSessionInvalidFrames: maxNuisances,
      maxSessionRejectedStreams: maxNuisances,
      maxOutstandingPings: 10,
      maxSettings: 32,
      // Megabytes, above which no stream more is opened: what is under way for each must fit.
      maxSessionMemory: Math.max(10, Math.ceil(this.#limits.maxStreamsPerConnection / 4)),
      // Fields that an origin repeats are allowed; without this, a repeated field would fail the response.
      strictSingleValueFields: false,
      maxHeaderListPairs: this.#limits.maxHeaders + 8,
      settings: {
        enableConnectProtocol: true,
        maxConcurrentStreams: this.#limits.maxStreamsPerConnection,
        maxHeaderListSize: this.#limits.maxHeaderBytes,
        initialWindowSize: 1_048_576,
      },
    });
    this.#sessions.set(session, { streams: 0, head: this.#services.heads.add(clear) });
    surface.onOpen?.(session);
    session.on("error", () => session.destroy());
    session.once("close", () => {
      this.#sessions.delete(session);
      clear.destroy();
    });
    // A client that left gets what it waits for, and holds no place after that.
    clear.once("end", () => session.close());
    // A session that is not used is closed like an idle keep-alive connection.
    // Not the callback of setTimeout(), which is called for the first time-out only.
    session.setTimeout(this.#limits.keepAliveTimeoutMs);
    session.on("timeout", () => {
      if (this.#sessions.get(session)?.streams !== 0) return;
      // A client that takes nothing more holds up the end of a session.
      if (session.closed) session.destroy();
      else session.close();
    });
    const { maxRequestsPerConnection: most } = this.#limits;
    let streams = 0;
    session.on("stream", (stream, fields, _flags, rawHeaders) => {
      streams += 1;
      // GOAWAY comes behind the last response: some clients (httpx, java.net.http) drop what is open when it comes.
      if (streams === most) stream.once("close", () => session.close());
      else if (most > 0 && streams > most) session.close();
      this.#count(session, 1);
      stream.once("close", () => this.#count(session, -1));
      this.#onStream(stream, fields, rawHeaders, { ...surface, scheme });
    });
  }

  drain(): void {
    for (const session of this.#sessions.keys()) session.close();
  }

  close(): void {
    for (const session of this.#sessions.keys()) session.destroy();
  }

  #count(session: ServerHttp2Session, change: number): void {
    const open = this.#sessions.get(session);
    if (open === undefined) return;
    open.streams += change;
    if (open.streams > 0) open.head.pause();
    else {
      open.head.resume();
      // A time-out that came while a stream was open is not repeated, and the end of a stream starts none.
      session.setTimeout(this.#limits.keepAliveTimeoutMs);
    }
  }

  #onStream(
    stream: ServerHttp2Stream,
    fields: Fields,
    raw: readonly string[],
    { surface, client, parent, scheme, ...reading }: Http2Surface & { readonly scheme: Scheme },
  ): void {
    const services = this.#services;
    stream.on("error", ignore);
    const protocol = textOf(fields[":protocol"]);
    const isConnect = protocol === undefined && fields[":method"] === "CONNECT";
    if (isConnect && reading.connect !== undefined) {
      reading.connect({ stream, fields, raw, maxHeaders: this.#limits.maxHeaders });
      return;
    }
    const lease = services.runtimes.acquire();
    const method = protocol === undefined ? (textOf(fields[":method"]) ?? "") : "GET";
    const limits = downstreamLimits(services, lease);
    const downstream = new Http2Downstream(stream, { method, fields, raw }, limits);
    if (reading.refuse !== undefined) {
      lease.release();
      const { session } = stream;
      stream.once("close", () => session?.close());
      replyAlone(services, downstream, reading.refuse(method, textOf(fields[":path"]) ?? ""));
      return;
    }
    const from = { surface, client, method, parent };
    arrive(services, { lease, downstream, from }, (runtime) => {
      const { path, host, headers } = parse(fields, raw, {
        maxHeaders: this.#limits.maxHeaders,
        scheme,
      });
      checkMethod(method);
      const credentials = textOf(fields["proxy-authorization"]);
      const { client: peer, ...route } = reading.route(
        { path, host, stream, credentials },
        runtime,
      );
      return {
        route,
        client: () => peer,
        headers,
        upgrade:
          protocol === undefined
            ? undefined
            : (parts) => streamUpgrade({ ...parts, protocol, stream }),
      };
    });
  }
}

/** Turns the fields of a stream into a request, or throws what is wrong with it. */
function parse(
  fields: Fields,
  raw: readonly string[],
  { maxHeaders, scheme }: { readonly maxHeaders: number; readonly scheme: Scheme },
): Parsed {
  const method = textOf(fields[":method"]) ?? "";
  const protocol = textOf(fields[":protocol"]);
  const path = textOf(fields[":path"]) ?? "";
  if (!isToken(method)) throw new ProxyError("request.malformed", "the method is not a token");
  if (method === "CONNECT" && protocol !== "websocket") {
    throw new ProxyError("request.method-not-allowed", "a CONNECT over HTTP/2 is refused");
  }
  if (textOf(fields[":scheme"]) !== scheme)
    throw new ProxyError("request.misdirected", `the scheme is not ${scheme}`);
  if (!path.startsWith("/")) {
    throw new ProxyError("request.malformed", "the path is not an absolute path");
  }
  originForm(path);
  if (raw.length > (maxHeaders + 8) * 2) {
    throw new ProxyError(
      "request.headers-too-large",
      "the request has more fields than limits.max_headers",
    );
  }
  const host = hostOf(fields, scheme);
  const headers = new HeaderList(stripHopByHop(endToEnd(raw), { keepTrailersTe: true }));
  headers.set("Host", host);
  headers.delete("expect");
  if (protocol === undefined) return { path, host, headers };
  // RFC 8441 section 5: the key of the HTTP/1.1 handshake has no counterpart in HTTP/2.
  headers.set("Sec-WebSocket-Key", randomBytes(16).toString("base64"));
  return { path, host, headers };
}

/** Host as the client spelt it; RFC 9113 section 8.3.1: `:authority` must not differ. */
function hostOf(fields: Fields, scheme: Scheme): string {
  const authority = textOf(fields[":authority"]);
  const host = textOf(fields["host"]);
  if (authority === undefined && host === undefined) {
    throw new ProxyError("request.malformed", "the request names no authority");
  }
  if (authority !== undefined && host !== undefined) {
    const same = parseHostHeader(authority, scheme).equals(parseHostHeader(host, scheme));
    if (!same) throw new ProxyError("request.malformed", ":authority and host differ");
  }
  const text = authority ?? host ?? "";
  // Parsed for its refusals: what is no host must not reach a per-host rule.
  parseHostHeader(text, scheme);
  return text;
}

/** Regular fields; the crumbs of a Cookie become one again for HTTP/1.1 (RFC 9113 section 8.2.3). */
export function endToEnd(raw: readonly string[]): string[] {
  const flat: string[] = [];
  const cookies: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] ?? "";
    const value = raw[i + 1] ?? "";
    if (name.startsWith(":") || name === "host") continue;
    if (name === "cookie") cookies.push(value);
    else flat.push(name, value);
  }
  if (cookies.length > 0) flat.push("cookie", cookies.join("; "));
  return flat;
}

/** The one text of a field, or its several ones in a list. */
export function textOf(value: string | string[] | undefined): string | undefined {
  return typeof value === "string" ? value : value?.join(", ");
}

function ignore(): void {
  // `close` follows and is what ends the exchange.
}
