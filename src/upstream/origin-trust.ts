/** TLS to origins: which roots are trusted, how a name is checked, and how a failure is worded. */
import tls from "node:tls";
import type net from "node:net";
import { messageOf, ProxyError } from "../errors.ts";
import type { Destination } from "../net/destination.ts";

/** Which certificates an origin may present. */
export interface OriginTrustOptions {
  /** PEM certificates trusted in addition to the runtime's roots. */
  readonly extraCertificates: readonly string[];
  /** Hosts whose certificate is not verified, because the operator said so. */
  readonly insecureHosts: { matches(host: string): boolean };
  readonly minVersion: tls.SecureVersion;
  readonly handshakeTimeoutMs: number;
}

/** Opens verified TLS over a connected socket. */
export class OriginTrust {
  readonly #context: tls.SecureContext;
  readonly #insecureHosts: OriginTrustOptions["insecureHosts"];
  readonly #handshakeTimeoutMs: number;
  /** Sessions per authority, so that a second connection resumes; bounded. */
  readonly #sessions = new Map<string, Buffer>();

  constructor(options: OriginTrustOptions) {
    const ca = options.extraCertificates;
    this.#context = tls.createSecureContext({
      minVersion: options.minVersion,
      ...(ca.length === 0 ? {} : { ca: [...tls.rootCertificates, ...ca] }),
    });
    this.#insecureHosts = options.insecureHosts;
    this.#handshakeTimeoutMs = options.handshakeTimeoutMs;
  }

  /** Rejects with `upstream.tls` or `upstream.timeout`, and destroys the socket then. */
  secure(
    socket: net.Socket,
    destination: Destination,
    alpn: readonly string[] = ["http/1.1"],
  ): Promise<tls.TLSSocket> {
    const { authority } = destination;
    return new Promise((resolve, reject) => {
      const session = this.#sessions.get(authority);
      const secured = tls.connect({
        socket,
        secureContext: this.#context,
        ALPNProtocols: [...alpn],
        rejectUnauthorized: !this.#insecureHosts.matches(destination.host),
        // SNI carries names only (RFC 6066 section 3).
        ...(destination.isAddress ? {} : { servername: destination.host }),
        ...(session === undefined ? {} : { session }),
        checkServerIdentity: (_name, certificate) => checkIdentity(destination.host, certificate),
      });
      const timer = setTimeout(() => {
        fail(
          new ProxyError(
            "upstream.timeout",
            `${authority} did not finish its TLS handshake in ${this.#handshakeTimeoutMs} ms`,
          ),
        );
      }, this.#handshakeTimeoutMs);
      const fail = (error: unknown): void => {
        clearTimeout(timer);
        this.#sessions.delete(authority);
        secured.destroy();
        socket.destroy();
        reject(error instanceof ProxyError ? error : tlsFault(authority, error));
      };
      secured.once("error", fail);
      secured.on("session", (ticket) => this.#remember(authority, ticket));
      secured.once("secureConnect", () => {
        clearTimeout(timer);
        secured.removeListener("error", fail);
        secured.on("error", () => secured.destroy());
        resolve(secured);
      });
    });
  }

  #remember(authority: string, session: Buffer): void {
    if (this.#sessions.size >= maxSessions) {
      const [oldest] = this.#sessions.keys();
      if (oldest !== undefined) this.#sessions.delete(oldest);
    }
    this.#sessions.set(authority, session);
  }
}

const maxSessions = 1_024;

/** RFC 9110 section 4.3.4: the name must stand in subjectAltName; the common name does not count. */
function checkIdentity(host: string, certificate: tls.PeerCertificate): Error | undefined {
  if (certificate.subjectaltname === undefined) {
    return new Error(`its certificate has no subjectAltName for ${host}`);
  }
  return tls.checkServerIdentity(host, certificate);
}

function tlsFault(authority: string, cause: unknown): ProxyError {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  const why = code === undefined ? messageOf(cause) : `${messageOf(cause)} (${code})`;
  return new ProxyError(
    "upstream.tls",
    `the TLS connection to ${authority} could not be verified: ${why}; if its authority is to be trusted, add it to tls_bridge.upstream_ca_bundle`,
    { cause },
  );
}
