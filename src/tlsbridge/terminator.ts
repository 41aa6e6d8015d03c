/**
 * The bridge's side of a client's TLS handshake, over a socket that already carries a permitted tunnel.
 */
import type { Socket } from "node:net";
import type { SecureContext } from "node:tls";
import { TLSSocket } from "node:tls";
import { isServerNameOf } from "../net/client-hello.ts";
import { messageOf } from "../errors.ts";

/** Where leaves come from. */
export interface LeafSource {
  contextFor(name: string): Promise<SecureContext>;
}

/** Options of {@link Terminator}. */
export interface TerminatorOptions {
  /** Protocols offered, in order of preference. */
  readonly alpn?: readonly string[];
  readonly handshakeTimeoutMs?: number;
}

/** One handshake. */
export interface TerminateRequest {
  /** The canonical host or address of the tunnel. The leaf is for this name and no other. */
  readonly name: string;
  /** Bytes of the client that were read already. */
  readonly head?: Buffer;
  readonly signal?: AbortSignal;
}

/** A finished handshake. The socket has an error listener that keeps the process alive; its owner adds one of its own. */
export interface Terminated {
  readonly kind: "terminated";
  readonly tlsSocket: TLSSocket;
  /** The negotiated protocol; `http/1.1` when the client offered none. */
  readonly alpnProtocol: string;
  readonly servername: string | undefined;
  readonly isResumed: boolean;
}

/** A handshake that came to nothing. Both sockets are destroyed when this is returned. */
export type TerminationFailure =
  /** The client did not accept the leaf: it does not trust the CA, or it pins the origin's certificate. */
  | { readonly kind: "client-rejected"; readonly alert: string }
  | { readonly kind: "not-tls" }
  | { readonly kind: "timeout" }
  /** The client asked for another server than the one that was permitted. */
  | { readonly kind: "sni-mismatch"; readonly servername: string }
  /** No common version, cipher or protocol, or a broken message. `alert` is set when the client said so. */
  | { readonly kind: "protocol"; readonly message: string; readonly alert?: string }
  /**
   * The client went away without a word. With `afterLeaf` it had been shown the leaf: Node and Java's HttpClient refuse
   * a certificate like this, so it is as good as `client-rejected` in a message to people.
   */
  | { readonly kind: "closed"; readonly afterLeaf: boolean }
  | { readonly kind: "aborted" }
  /** There was no leaf to offer; `error` says why. */
  | { readonly kind: "no-leaf"; readonly error: unknown };

/** Outcome of {@link Terminator.terminate}. */
export type Termination = Terminated | TerminationFailure;

/** Alerts by which a client says that it does not accept a certificate (RFC 8446 section 6.2), in OpenSSL's words. */
const rejectionAlerts: ReadonlySet<string> = new Set([
  "bad_certificate",
  "unsupported_certificate",
  "certificate_revoked",
  "certificate_expired",
  "certificate_unknown",
  "unknown_ca",
  "access_denied",
  "bad_certificate_status_response",
]);

/** OpenSSL's names for first bytes that are no TLS record. */
const notTlsCodes: ReadonlySet<string> = new Set([
  "ERR_SSL_HTTP_REQUEST",
  "ERR_SSL_HTTPS_PROXY_REQUEST",
  "ERR_SSL_WRONG_VERSION_NUMBER",
]);

/** A flight with a certificate is longer than this, a retry request or a resumption is not. */
const leastLeafFlightBytes = 400;

/** RFC 6066 section 3 and RFC 8446 section 6: a fatal (2) unrecognized_name (112) alert in a plaintext record. */
export const unrecognizedNameAlert: Readonly<Uint8Array> = Uint8Array.of(21, 3, 3, 0, 2, 2, 112);

class ServerNameMismatch extends Error {
  readonly servername: string;

  constructor(servername: string) {
    super("server name differs from the tunnel's");
    this.servername = servername;
  }
}

/** Performs handshakes with leaves from one source. */
export class Terminator {
  readonly #leaves: LeafSource;
  readonly #alpn: readonly string[];
  readonly #handshakeTimeoutMs: number;
  #handshaking = 0;

  constructor(leaves: LeafSource, options: TerminatorOptions = {}) {
    this.#leaves = leaves;
    this.#alpn = options.alpn ?? ["h2", "http/1.1", "http/1.0"];
    this.#handshakeTimeoutMs = options.handshakeTimeoutMs ?? 10_000;
  }

  /** How many handshakes are under way. */
  get handshaking(): number {
    return this.#handshaking;
  }

  /**
   * Performs the handshake on `socket`, which must not be flowing. Never throws: on every failure the socket is
   * destroyed and the reason returned.
   */
  async terminate(socket: Socket, request: TerminateRequest): Promise<Termination> {
    this.#handshaking += 1;
    // Stays for good: a reset may come at any time after this, too.
    socket.on("error", ignore);
    const deadline = new AbortController();
    const timer = setTimeout(() => {
      deadline.abort();
    }, this.#handshakeTimeoutMs);
    const signal =
      request.signal === undefined
        ? deadline.signal
        : AbortSignal.any([deadline.signal, request.signal]);
    try {
      const result = await this.#handshake(socket, request, signal);
      if (result.kind === "terminated") return result;
      socket.destroy();
      if (result.kind === "aborted" && deadline.signal.aborted) return { kind: "timeout" };
      return result;
    } finally {
      clearTimeout(timer);
      this.#handshaking -= 1;
    }
  }

  async #handshake(
    socket: Socket,
    request: TerminateRequest,
    signal: AbortSignal,
  ): Promise<Termination> {
    let context: SecureContext;
    try {
      context = await this.#leaves.contextFor(request.name);
    } catch (error) {
      return { kind: "no-leaf", error };
    }
    if (signal.aborted) return { kind: "aborted" };
    if (socket.destroyed || socket.readableEnded) return { kind: "closed", afterLeaf: false };
    if (request.head !== undefined && request.head.length > 0) socket.unshift(request.head);
    const tlsSocket = new TLSSocket(socket, {
      isServer: true,
      secureContext: context,
      ALPNProtocols: [...this.#alpn],
      SNICallback: (servername, done) => {
        if (isServerNameOf(servername, request.name)) {
          done(null);
          return;
        }
        // Nothing was sent yet, so the alert still fits in a plaintext record; OpenSSL would close without a word.
        socket.write(unrecognizedNameAlert);
        done(new ServerNameMismatch(servername));
      },
    });
    const sentBefore = socket.bytesWritten;
    const result = await finished(tlsSocket, signal);
    if (result.kind !== "closed") return result;
    return { kind: "closed", afterLeaf: socket.bytesWritten - sentBefore > leastLeafFlightBytes };
  }
}

/** Waits for the end of a handshake, good or bad. */
function finished(tlsSocket: TLSSocket, signal: AbortSignal): Promise<Termination> {
  return new Promise((resolve) => {
    const settle = (result: Termination): void => {
      tlsSocket.off("secure", onSecure);
      tlsSocket.off("end", onClose);
      tlsSocket.off("close", onClose);
      signal.removeEventListener("abort", onAbort);
      if (result.kind !== "terminated") tlsSocket.destroy();
      resolve(result);
    };
    const onSecure = (): void => {
      // Without this http2 waits for a 'secureConnect' that a hand-made server socket never emits.
      Object.assign(tlsSocket, { secureConnecting: false });
      // Sockets from an HTTP server allow half-open connections; http2 would keep a session whose client has left.
      tlsSocket.allowHalfOpen = false;
      settle({
        kind: "terminated",
        tlsSocket,
        alpnProtocol: tlsSocket.alpnProtocol || "http/1.1",
        servername: servernameOf(tlsSocket),
        isResumed: tlsSocket.isSessionReused(),
      });
    };
    const onClose = (): void => settle({ kind: "closed", afterLeaf: false });
    const onAbort = (): void => settle({ kind: "aborted" });
    // A hand-made server socket reports TLS errors by this event alone, and after the handshake it neither emits
    // 'error' nor closes by itself. The listener therefore stays for the life of the socket.
    tlsSocket.on("_tlsError", (error: unknown) => {
      tlsSocket.destroy(error instanceof Error ? error : undefined);
      settle(failureOf(error));
    });
    tlsSocket.on("error", ignore);
    tlsSocket.on("secure", onSecure);
    // 'end' is the client's FIN: with allowHalfOpen no 'close' would follow it.
    tlsSocket.on("end", onClose);
    tlsSocket.on("close", onClose);
    signal.addEventListener("abort", onAbort);
  });
}

function servernameOf(tlsSocket: TLSSocket): string | undefined {
  const servername: unknown = Reflect.get(tlsSocket, "servername");
  return typeof servername === "string" && servername !== "" ? servername : undefined;
}

/** Reads what went wrong out of an error of a TLS socket, during the handshake or after it. */
function failureOf(error: unknown): TerminationFailure {
  if (error instanceof ServerNameMismatch) {
    return { kind: "sni-mismatch", servername: error.servername };
  }
  const code = codeOf(error);
  if (notTlsCodes.has(code)) return { kind: "not-tls" };
  const alert = alertOf(error);
  if (alert !== undefined && rejectionAlerts.has(alert)) return { kind: "client-rejected", alert };
  if (code === "ECONNRESET" || code === "EPIPE") return { kind: "closed", afterLeaf: false };
  const message = code === "" ? messageOf(error) : code;
  return alert === undefined ? { kind: "protocol", message } : { kind: "protocol", message, alert };
}

/** The alert that a client sent, in lower case, if that is what an error tells. */
export function alertOf(error: unknown): string | undefined {
  // OpenSSL's reasons for received alerts begin with the oldest version that defined them; 3.5 renamed the first.
  const name = /^ERR_SSL_(?:SSLV3|SSL\/TLS|TLSV1|TLSV13)_(?:ALERT_)?(.+)$/.exec(codeOf(error))?.[1];
  return name?.toLowerCase();
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string"
    ? error.code
    : "";
}

function ignore(): void {
  // The failure is read from 'close' or '_tlsError'; this listener only keeps it from being thrown.
}
