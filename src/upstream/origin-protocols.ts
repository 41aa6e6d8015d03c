/** What origins made of handshakes that offered http/1.1 alone, where the protocol is chosen for each origin. */
import type { TLSSocket } from "node:tls";
import { ProxyError } from "../errors.ts";

/** Answers that are remembered. */
const maxOrigins = 1_024;
/** An origin that names no protocol is asked again after this time, one that ends every handshake sooner. */
const believedMs = 600_000;
const failedBelievedMs = 30_000;

/** The cause of the fault of an origin that speaks nothing but HTTP/2. */
const http2Only = new Error("the origin speaks nothing but HTTP/2");

/** Nothing was sent to the origin, and the next request goes there by HTTP/2. */
export function isProtocolRefusal(error: unknown): boolean {
  return error instanceof Error && error.cause === http2Only;
}

interface Answer {
  readonly speaksHttp2: Promise<boolean>;
  until: number;
}

/** Learns which origins speak nothing but HTTP/2. */
export class OriginProtocols {
  readonly #http2Only = new Set<string>();
  readonly #asked = new Map<string, Answer>();

  isHttp2Only(authority: string): boolean {
    return this.#http2Only.has(authority);
  }

  /** The origin is asked for HTTP/1.1 again. */
  forget(authority: string): void {
    this.#http2Only.delete(authority);
    this.#asked.delete(authority);
  }

  /**
   * A connection for HTTP/1.1.
   *
   * Some origins that speak nothing but HTTP/2 say so with an alert (RFC 7301 section 3.2), some end the handshake in
   * another way, and some finish it without a protocol and close then. Only a handshake that offers h2 tells them from
   * origins that failed and from those that know nothing of ALPN, and no request may be spent on finding out.
   */
  async http1(
    authority: string,
    dial: (protocol: "http/1.1" | "h2") => Promise<TLSSocket>,
  ): Promise<TLSSocket> {
    let secured: TLSSocket;
    try {
      secured = await dial("http/1.1");
    } catch (error) {
      if (isEndedByOrigin(error) && (await this.#speaksHttp2(authority, dial, failedBelievedMs)))
        throw refusal(authority);
      throw error;
    }
    if (secured.alpnProtocol === "http/1.1") return secured;
    if (!(await this.#speaksHttp2(authority, dial, believedMs))) return secured;
    secured.destroy();
    throw refusal(authority);
  }

  /** Asks once for all connections that want to know. */
  #speaksHttp2(
    authority: string,
    dial: (protocol: "h2") => Promise<TLSSocket>,
    validMs: number,
  ): Promise<boolean> {
    const now = performance.now();
    const known = this.#asked.get(authority);
    if (known !== undefined && now < known.until) return known.speaksHttp2;
    if (this.#asked.size >= maxOrigins) this.#asked.clear();
    const speaksHttp2 = dial("h2").then(
      (socket) => {
        socket.destroy();
        if (socket.alpnProtocol !== "h2") return false;
        if (this.#http2Only.size >= maxOrigins) this.#http2Only.clear();
        this.#http2Only.add(authority);
        return true;
      },
      (error: unknown) => {
        // Whoever asked has left, and nobody has answered; another failure is no answer for long.
        const isGivenUp = error instanceof ProxyError && error.code === "pipeline.cancelled";
        answer.until = isGivenUp ? 0 : Math.min(answer.until, performance.now() + failedBelievedMs);
        return false;
      },
    );
    const answer: Answer = { speaksHttp2, until: now + validMs };
    this.#asked.set(authority, answer);
    return speaksHttp2;
  }
}

function refusal(authority: string): ProxyError {
  const message = `${authority} speaks nothing but HTTP/2`;
  return new ProxyError("upstream.tls", message, { cause: http2Only, hop: "tls" });
}

/** An alert of any kind, or an end without one: not what this side found wrong with the origin. */
function isEndedByOrigin(error: unknown): boolean {
  const cause = error instanceof Error ? error.cause : undefined;
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  return code === "ECONNRESET" || code === "EPIPE" || /^ERR_SSL_.*ALERT/.test(code);
}
