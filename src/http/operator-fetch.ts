/** One bounded HTTP call to a service that the operator named: keys, tokens, decisions and bundles come in this way. */
import type { Secret } from "../secret.ts";

/** What this program shows of itself in a TLS handshake. */
export interface ClientCertificate {
  /** In PEM: the certificate first, then its intermediates. */
  readonly certificateChain: string;
  /** In PEM. */
  readonly privateKey: Secret;
}

/** Whose certificates are taken from one service, in place of all others that this program trusts. */
export interface TrustedAuthorities {
  /** Certificates in PEM. */
  readonly pem: string;
  /** The key that names them, for faults. */
  readonly key: string;
}

/** A bounded HTTP response from a service that the operator named in the configuration. */
export interface OperatorResponse {
  readonly status: number;
  /** Lower-case names; repeated fields are joined with ", ". */
  readonly headers: Readonly<Record<string, string>>;
  /** The lines of Set-Cookie, which cannot be joined (RFC 6265 section 3). */
  readonly setCookies?: readonly string[];
  readonly body: Buffer;
}

/** A request to a service that the operator named in the configuration. */
export interface OperatorRequest {
  /** GET when absent. */
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array;
  readonly signal?: AbortSignal;
  /** Until the whole response is there; 30,000 when absent. */
  readonly timeoutMs?: number;
  /** A longer response is a fault; 1 MiB when absent. */
  readonly maxBytes?: number;
  /**
   * Shown where the service asks for one; the address has to be https. Requests with another certificate, or with none,
   * use other connections; certificates are compared by identity.
   */
  readonly certificate?: ClientCertificate | undefined;
  /** Absent: what the file trusts. Compared by identity, as certificates are; not together with one. */
  readonly authorities?: TrustedAuthorities | undefined;
  /**
   * The service may hold its response back for as long as a person takes: the call then has a connection that no other
   * waits for. Whoever asks so bounds how many there are.
   */
  readonly isHeld?: boolean;
  /**
   * One call of gRPC over HTTP/2, with TLS for https and without it for http and sockets: `body` is the message sent,
   * and that of the response the one that came. A call that ends with another status than OK rejects.
   */
  readonly isGrpc?: boolean;
}

/**
 * The only way out for a plugin: it reaches the origins that its definition names, and nothing else.
 *
 * Rejects with ProxyError: `upstream.refused`, `upstream.timeout`, `upstream.tls`, `upstream.bad-response`,
 * `upstream.response-too-large`. Redirects are returned, never followed.
 */
export type OperatorFetch = (url: string, request?: OperatorRequest) => Promise<OperatorResponse>;
