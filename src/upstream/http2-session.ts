/** One HTTP/2 session with an origin: how many streams it takes, and which of them its origin did not process. */
import http2, { type ClientHttp2Session, type ClientHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import { ProxyError } from "../errors.ts";

/** Options of a session. Milliseconds; 0 means none. */
export interface Http2SessionOptions {
  readonly authority: string;
  /** `http`: the origin is known to speak HTTP/2 without TLS; https where absent. */
  readonly scheme?: "http" | "https";
  readonly connectTimeoutMs: number;
  readonly idleTimeoutMs: number;
  /** Of one response. */
  readonly maxHeaderBytes: number;
}

/** Streams per session before another connection is opened, where the origin would take more. */
const maxStreams = 100;

/** Fields of one response; their bytes are bounded as well. */
export const maxResponseFields = 1_000;

/**
 * Bodies that are held whole count against it, and above it Node resets streams at random: how much of them there is has
 * a bound of its own (limits.max_buffered).
 */
const maxSessionMegabytes = 65_536;

/** A client may repeat any field: it goes on as it does over HTTP/1.1. The types of Node know this of servers alone. */
const repeatable = { strictSingleValueFields: false };

/** A session whose origin has sent its SETTINGS. */
export class OriginSession {
  readonly session: ClientHttp2Session;
  /** Of what is asked for on it. */
  readonly scheme: "http" | "https";
  readonly #idleTimeoutMs: number;
  #streams = 0;
  #isUsed = false;
  #lastStream = Number.POSITIVE_INFINITY;
  /** A stream ended, or the origin takes more of them. */
  onRoom: () => void = () => undefined;

  private constructor(session: ClientHttp2Session, options: Http2SessionOptions) {
    const { scheme = "https", idleTimeoutMs } = options;
    this.session = session;
    this.scheme = scheme;
    this.#idleTimeoutMs = idleTimeoutMs;
    session.on("error", () => session.destroy());
    session.on("goaway", (_code, lastStream) => {
      this.#lastStream = Math.min(this.#lastStream, lastStream);
      session.close();
    });
    session.on("remoteSettings", () => this.onRoom());
    session.setTimeout(idleTimeoutMs);
    // Not the callback of setTimeout(), which is called for the first time-out only.
    session.on("timeout", () => {
      if (this.isIdle) session.close();
    });
  }

  /**
   * Opens the session and waits for the origin's first SETTINGS, which say how many streams it takes.
   *
   * Rejects with ProxyError `upstream.*`, and the socket is destroyed then.
   */
  static open(socket: Socket, options: Http2SessionOptions): Promise<OriginSession> {
    const { authority, scheme = "https", connectTimeoutMs, maxHeaderBytes } = options;
    // It may have ended in the same turn in which its handshake did; a session would wait for it.
    if (socket.destroyed || socket.readableEnded)
      return Promise.reject(new ProxyError("upstream.reset", `${authority} closed the connection`));
    const session = http2.connect(`${scheme}://${authority}`, {
      ...repeatable,
      createConnection: () => socket,
      settings: {
        enablePush: false,
        initialWindowSize: 1_048_576,
        maxHeaderListSize: maxHeaderBytes,
      },
      maxHeaderListPairs: maxResponseFields,
      maxSessionMemory: maxSessionMegabytes,
    });
    const opened = new OriginSession(session, options);
    return new Promise((resolve, reject) => {
      const fail = (error: ProxyError): void => {
        clearTimeout(timer);
        session.destroy();
        reject(error);
      };
      const onClose = (): void => {
        const message = `${authority} closed the connection before its HTTP/2 settings`;
        fail(new ProxyError("upstream.reset", message));
      };
      const timer = setTimeout(() => {
        const message = `${authority} sent no HTTP/2 settings in ${connectTimeoutMs} ms (limits.connect_timeout)`;
        fail(new ProxyError("upstream.timeout", message));
      }, connectTimeoutMs);
      session.once("close", onClose);
      socket.once("close", onClose);
      // The socket may be half-open, which HTTP/2 has no use for: the session would never hear of it.
      socket.once("end", () => socket.destroy());
      session.once("remoteSettings", () => {
        clearTimeout(timer);
        session.off("close", onClose);
        socket.off("close", onClose);
        resolve(opened);
      });
    });
  }

  get isOpen(): boolean {
    return !this.session.closed && !this.session.destroyed;
  }

  get isIdle(): boolean {
    return this.#streams === 0;
  }

  get hasRoom(): boolean {
    return this.isOpen && this.#streams < this.#limit;
  }

  /** No stream of ours is in the way: the origin itself takes none now, and another session would change nothing. */
  get isShut(): boolean {
    return this.isOpen && this.#limit === 0;
  }

  /** Whether it ever carried a request. */
  get isUsed(): boolean {
    return this.#isUsed;
  }

  /** Opens a stream; the session must have room. Throws where HTTP/2 cannot carry the fields, and nothing is sent. */
  request(fields: http2.OutgoingHttpHeaders, endStream: boolean): ClientHttp2Stream {
    const stream = this.session.request(fields, { endStream });
    this.#streams += 1;
    this.#isUsed = true;
    stream.once("close", () => {
      this.#streams -= 1;
      // A time-out that came while a stream was open is not repeated, and the end of a stream starts none.
      if (this.isIdle) this.session.setTimeout(this.#idleTimeoutMs);
      this.onRoom();
    });
    return stream;
  }

  /** RFC 9113 section 8.7: the origin said so, or never received the stream. */
  didNotProcess({ id, rstCode }: ClientHttp2Stream): boolean {
    if (rstCode === http2.constants.NGHTTP2_REFUSED_STREAM) return true;
    return id === undefined || id > this.#lastStream;
  }

  get #limit(): number {
    return Math.min(maxStreams, this.session.remoteSettings.maxConcurrentStreams ?? maxStreams);
  }
}
