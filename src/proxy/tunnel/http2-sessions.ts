/** HTTP/2 with the client of a bridged connection: every stream is judged for itself. */
import { randomBytes } from "node:crypto";
import http2, { type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import type { TLSSocket } from "node:tls";
import { ProxyError } from "../../errors.ts";
import { HeaderList, isToken, stripHopByHop } from "../../http/headers.ts";
import { type Destination, originForm, parseHostHeader } from "../../net/destination.ts";
import type { WatchedHead } from "../../net/head-watch.ts";
import { type BridgedConnection, bridgedRoute } from "./bridged-connection.ts";
import { Http2Downstream } from "../exchange/http2-downstream.ts";
import { arrive, downstreamLimits, type SurfaceServices } from "../exchange/arrival.ts";
import type { HttpLimits } from "../exchange/http-server.ts";
import { checkMethod } from "../exchange/request-head.ts";
import { streamUpgrade } from "../exchange/upgrade.ts";

type Fields = Readonly<Record<string, string | string[] | undefined>>;

interface Parsed {
  readonly method: string;
  readonly path: string;
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

/** The HTTP/2 sessions of all bridged connections. */
export class Http2Sessions {
  readonly #services: SurfaceServices;
  readonly #limits: HttpLimits;
  readonly #sessions = new Map<ServerHttp2Session, OpenSession>();

  constructor(services: SurfaceServices, limits: HttpLimits) {
    this.#services = services;
    this.#limits = limits;
  }

  serve(clear: TLSSocket, connection: BridgedConnection): void {
    const session = http2.performServerHandshake(clear, {
      maxSessionInvalidFrames: maxNuisances,
      maxSessionRejectedStreams: maxNuisances,
      maxOutstandingPings: 10,
      maxSettings: 32,
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
    session.on("error", () => session.destroy());
    session.once("close", () => {
      this.#sessions.delete(session);
      clear.destroy();
    });
    // A session that is not used is closed like an idle keep-alive connection.
    // Not the callback of setTimeout(), which is called for the first time-out only.
    session.setTimeout(this.#limits.keepAliveTimeoutMs);
    session.on("timeout", () => {
      if (this.#sessions.get(session)?.streams === 0) session.close();
    });
    const { maxRequestsPerConnection: most } = this.#limits;
    let streams = 0;
    session.on("stream", (stream, fields, _flags, rawHeaders) => {
      streams += 1;
      if (streams === most) session.close();
      this.#count(session, 1);
      stream.once("close", () => this.#count(session, -1));
      this.#onStream(stream, fields, rawHeaders, connection);
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
    else open.head.resume();
  }

  #onStream(
    stream: ServerHttp2Stream,
    fields: Fields,
    raw: readonly string[],
    connection: BridgedConnection,
  ): void {
    const services = this.#services;
    stream.on("error", ignore);
    const lease = services.runtimes.acquire();
    const protocol = textOf(fields[":protocol"]);
    const method = protocol === undefined ? (textOf(fields[":method"]) ?? "") : "GET";
    const limits = downstreamLimits(services, lease);
    const downstream = new Http2Downstream(stream, { method, fields, raw }, limits);
    const { refusal, tunnel, destination } = connection;
    if (refusal !== undefined) {
      lease.release();
      refusal.asked(method, textOf(fields[":path"]) ?? "");
      downstream.reply(refusal.reply);
      stream.session?.close();
      return;
    }
    const from = {
      surface: "bridge",
      client: tunnel.client.address,
      method,
      parent: tunnel.id,
    } as const;
    arrive(services, { lease, downstream, from }, () => {
      const parsed = parse(fields, raw, destination, this.#limits.maxHeaders);
      checkMethod(parsed.method);
      return {
        route: { ...bridgedRoute(connection), path: parsed.path },
        client: () => tunnel.client,
        headers: parsed.headers,
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
  destination: Destination,
  maxHeaders: number,
): Parsed {
  const method = textOf(fields[":method"]) ?? "";
  const protocol = textOf(fields[":protocol"]);
  const path = textOf(fields[":path"]) ?? "";
  if (!isToken(method)) throw new ProxyError("request.malformed", "the method is not a token");
  if (method === "CONNECT" && protocol !== "websocket") {
    throw new ProxyError(
      "request.method-not-allowed",
      "a CONNECT inside a bridged connection is refused",
    );
  }
  if (textOf(fields[":scheme"]) !== "https")
    throw new ProxyError("request.misdirected", "the scheme is not https");
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
  const host = hostOf(fields, destination);
  const headers = new HeaderList(stripHopByHop(endToEnd(raw), { keepTrailersTe: true }));
  headers.set("Host", host);
  headers.delete("expect");
  if (protocol === undefined) return { method, path, headers };
  // RFC 8441 section 5: the key of the HTTP/1.1 handshake has no counterpart in HTTP/2.
  headers.set("Sec-WebSocket-Key", randomBytes(16).toString("base64"));
  return { method: "GET", path, headers };
}

/** Host as the client spelt it. RFC 9113 section 8.3.1: `:authority` must not differ, and both are the tunnel's. */
function hostOf(fields: Fields, destination: Destination): string {
  const authority = textOf(fields[":authority"]);
  const host = textOf(fields["host"]);
  if (authority === undefined && host === undefined) {
    throw new ProxyError("request.malformed", "the request names no authority");
  }
  if (authority !== undefined && host !== undefined) {
    const same = parseHostHeader(authority, "https").equals(parseHostHeader(host, "https"));
    if (!same) throw new ProxyError("request.malformed", ":authority and host differ");
  }
  const text = authority ?? host ?? "";
  const named = parseHostHeader(text, "https");
  if (named.equals(destination)) return text;
  throw new ProxyError(
    "request.misdirected",
    `the request names ${named.authority} inside a connection to ${destination.authority}`,
  );
}

/** Regular fields; the crumbs of a Cookie become one again for HTTP/1.1 (RFC 9113 section 8.2.3). */
function endToEnd(raw: readonly string[]): string[] {
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

function textOf(value: string | string[] | undefined): string | undefined {
  return typeof value === "string" ? value : value?.join(", ");
}

function ignore(): void {
  // `close` follows and is what ends the exchange.
}
