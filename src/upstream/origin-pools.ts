/** Keep-alive connections to origins: one undici pool per destination, dialled through the Upstream only. */
import type { Socket } from "node:net";
import { type Dispatcher, Pool } from "undici";
import { ProxyError } from "../errors.ts";
import type { Destination } from "../net/destination.ts";
import type { Permit } from "../pipeline/pipeline.ts";
import type { OriginTrust } from "./origin-trust.ts";
import type { Upstream } from "./upstream.ts";

/** One request for an origin; headers are a flat list of names and values. */
export interface OutgoingRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: string[];
  readonly body: Buffer | AsyncIterable<Buffer> | null;
  /** Protocol of an `Upgrade`, e.g. `websocket`. */
  readonly upgrade?: string;
  /** True for messages that HTTP/1.1 cannot carry whole, such as gRPC. */
  readonly needsHttp2: boolean;
}

/** Limits of a connection to an origin. Milliseconds; 0 means none. */
export interface OriginPoolsOptions {
  readonly upstream: Upstream;
  readonly trust: OriginTrust;
  readonly responseTimeoutMs: number;
  readonly streamIdleTimeoutMs: number;
  readonly maxHeaderBytes: number;
  /** HTTP/2 with https origins: where a request needs it, always, or never. It costs a third of the throughput. */
  readonly http2: "auto" | "on" | "off";
}

interface Entry {
  readonly pool: Pool;
  /** The newest permit for this destination: proof for the dials that the pool makes on its own. */
  permit: Permit;
  lastUsed: number;
}

/** More destinations than this at once, and idle ones are closed. */
const maxOrigins = 1_024;
/** Node servers close idle connections after 5 s: stay below, so that a request rarely meets a closing one. */
const keepAliveTimeoutMs = 4_000;
/** An origin that promises to wait longer is believed this far. */
const keepAliveMaxTimeoutMs = 30_000;

/** The HTTP client for agent traffic of one generation. */
export class OriginPools {
  readonly #options: OriginPoolsOptions;
  readonly #entries = new Map<string, Entry>();
  readonly #closing = new AbortController();
  /** Origins that refused a handshake for HTTP/1.1. */
  readonly #http2Only = new Set<string>();
  #uses = 0;

  constructor(options: OriginPoolsOptions) {
    this.#options = options;
  }

  /** Sends a request that a pipeline permitted; the handler hears the rest. */
  dispatch(permit: Permit, request: OutgoingRequest, handler: Dispatcher.DispatchHandler): void {
    const entry = this.#entryFor(permit, request);
    entry.pool.dispatch(
      {
        method: request.method,
        path: request.path,
        headers: request.headers,
        // undici takes iterables as well; its types leave them out.
        body: request.body as Buffer | null,
        ...(request.upgrade === undefined ? {} : { upgrade: request.upgrade }),
      },
      handler,
    );
  }

  /** Open connections, for a gauge. */
  get connections(): number {
    let total = 0;
    for (const { pool } of this.#entries.values()) total += pool.stats.connected;
    return total;
  }

  /** Closes idle connections at once and the others after their requests. */
  async close(): Promise<void> {
    this.#closing.abort();
    const pools = [...this.#entries.values()].map(({ pool }) => pool.destroy());
    this.#entries.clear();
    await Promise.allSettled(pools);
  }

  #entryFor(permit: Permit, request: OutgoingRequest): Entry {
    const { destination } = permit;
    const http2 = this.#prefersHttp2(destination, request);
    const key = `${permit.direction} ${http2 ? "h2 " : ""}${destination.origin}`;
    this.#uses += 1;
    const known = this.#entries.get(key);
    if (known !== undefined) {
      known.permit = permit;
      known.lastUsed = this.#uses;
      return known;
    }
    if (this.#entries.size >= maxOrigins) this.#evict();
    const entry: Entry = {
      permit,
      lastUsed: this.#uses,
      pool: new Pool(`${destination.scheme}://${destination.authority}`, {
        connections: null,
        pipelining: 1,
        allowH2: http2,
        keepAliveTimeout: keepAliveTimeoutMs,
        keepAliveMaxTimeout: keepAliveMaxTimeoutMs,
        headersTimeout: this.#options.responseTimeoutMs,
        bodyTimeout: this.#options.streamIdleTimeoutMs,
        maxHeaderSize: this.#options.maxHeaderBytes,
        connect: (_options, callback) => {
          this.#open(entry.permit, destination, http2).then(
            (socket) => callback(null, socket),
            (error: unknown) => callback(asError(error), null),
          );
        },
      }),
    };
    this.#entries.set(key, entry);
    return entry;
  }

  #prefersHttp2(destination: Destination, request: OutgoingRequest): boolean {
    // An upgrade is a thing of HTTP/1.1, and without TLS there is no negotiation (RFC 9113 section 3.2).
    if (destination.scheme !== "https" || request.upgrade !== undefined) return false;
    switch (this.#options.http2) {
      case "on":
        return true;
      case "off":
        return false;
      case "auto":
        return request.needsHttp2 || this.#http2Only.has(destination.authority);
    }
  }

  async #open(permit: Permit, destination: Destination, http2: boolean): Promise<Socket> {
    const { upstream, trust } = this.#options;
    const connect = (): Promise<Socket> =>
      upstream.connect(permit, { signal: this.#closing.signal });
    const socket = await connect();
    if (destination.scheme !== "https") return socket;
    try {
      return await trust.secure(socket, destination, http2 ? ["h2", "http/1.1"] : ["http/1.1"]);
    } catch (error) {
      if (http2 || this.#options.http2 !== "auto" || !isProtocolRefusal(error)) throw error;
      // The origin speaks nothing but HTTP/2. undici goes by what was negotiated on the connection it is given.
      this.#remember(destination.authority);
      return trust.secure(await connect(), destination, ["h2"]);
    }
  }

  #remember(authority: string): void {
    if (this.#http2Only.size >= maxOrigins) this.#http2Only.clear();
    this.#http2Only.add(authority);
  }

  /** Drops the destination that was used longest ago; its running requests finish. */
  #evict(): void {
    let oldestKey: string | undefined;
    let oldest: Entry | undefined;
    for (const [key, entry] of this.#entries) {
      if (oldest === undefined || entry.lastUsed < oldest.lastUsed)
        [oldestKey, oldest] = [key, entry];
    }
    if (oldestKey === undefined || oldest === undefined) return;
    this.#entries.delete(oldestKey);
    // close() waits for the pool's running requests and then rejects new ones; nobody holds the pool any more.
    void oldest.pool.close().catch(() => undefined);
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new ProxyError("internal.fault", String(error));
}

/** RFC 7301 section 3.2: the origin's no_application_protocol alert. */
function isProtocolRefusal(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  return (
    cause instanceof Error &&
    "code" in cause &&
    cause.code === "ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL"
  );
}
