/** TLS to origins: which roots are trusted, how a name is checked, and how a failure is worded. */
import tls from "node:tls";
import type net from "node:net";
import { BoundedMap } from "../bounded-map.ts";
import { messageOf, ProxyError } from "../errors.ts";
import type { Destination } from "../net/destination.ts";
import type { TrustedAuthorities } from "../http/operator-fetch.ts";
import type { ClientCertificate } from "../pipeline/plugin.ts";

/** Which certificates an origin may present. */
export interface OriginTrustOptions {
  /** PEM certificates trusted in addition to the roots. */
  readonly extraCertificates: readonly string[];
  /** PEM certificates that stand in place of the runtime's roots; none of them is a choice, too. */
  readonly roots?: readonly string[];
  /** The key of the file that would make an unknown authority trusted. */
  readonly trustKey?: string;
  /** Hosts whose certificate is not verified, because the operator said so. */
  readonly insecureHosts: { matches(host: string): boolean };
  readonly minVersion: tls.SecureVersion;
  readonly handshakeTimeoutMs: number;
  /** Whether a refusal names the certificates that were presented; for trials, not for traffic. */
  readonly describesChains?: boolean;
}

/** Opens verified TLS over a connected socket. */
export class OriginTrust {
  readonly #contextOptions: tls.SecureContextOptions;
  readonly #context: tls.SecureContext;
  readonly #certified = new WeakMap<ClientCertificate, tls.SecureContext>();
  readonly #options: OriginTrustOptions;
  readonly #trusting = new WeakMap<TrustedAuthorities, OriginTrust>();
  readonly #insecureHosts: OriginTrustOptions["insecureHosts"];
  readonly #handshakeTimeoutMs: number;
  readonly #trustKey: string;
  readonly #describesChains: boolean;
  /** Sessions per authority, so that a second connection resumes; bounded. */
  readonly #sessions = new BoundedMap<string, Buffer>(maxSessions);
  /** Origins that ask for a client certificate, by authority, and whether they have answered a request all the same; bounded. */
  readonly #asking = new BoundedMap<string, "unanswered" | "answered">(maxSessions);

  constructor(options: OriginTrustOptions) {
    const { extraCertificates: extra, roots } = options;
    this.#options = options;
    this.#contextOptions = {
      minVersion: options.minVersion,
      ...(extra.length === 0 && roots === undefined
        ? {}
        : { ca: [...(roots ?? tls.rootCertificates), ...extra] }),
    };
    this.#context = tls.createSecureContext(this.#contextOptions);
    this.#trustKey = options.trustKey ?? "tls_bridge.upstream_ca_bundle";
    this.#insecureHosts = options.insecureHosts;
    this.#handshakeTimeoutMs = options.handshakeTimeoutMs;
    this.#describesChains = options.describesChains === true;
  }

  /** The same for these authorities alone. */
  only(authorities: TrustedAuthorities): OriginTrust {
    let trust = this.#trusting.get(authorities);
    if (trust === undefined) {
      const { pem, key: trustKey } = authorities;
      trust = new OriginTrust({
        ...this.#options,
        extraCertificates: [],
        roots: [pem],
        trustKey,
      });
      this.#trusting.set(authorities, trust);
    }
    return trust;
  }

  /** Rejects with `upstream.tls` or `upstream.timeout`, and destroys the socket then. */
  secure(
    socket: net.Socket,
    destination: Destination,
    alpn: readonly string[] = ["http/1.1"],
    certificate?: ClientCertificate,
  ): Promise<tls.TLSSocket> {
    const { authority } = destination;
    const isVerified = !this.#insecureHosts.matches(destination.host);
    return new Promise((resolve, reject) => {
      // A resumed session is of whoever began it: what shows a certificate resumes none.
      const sessions = certificate === undefined ? this.#sessions : undefined;
      const session = sessions?.get(authority);
      const secured = tls.connect({
        socket,
        secureContext: this.#contextFor(certificate),
        ALPNProtocols: [...alpn],
        // A refused handshake shows no certificates, so a trial completes it and refuses then.
        rejectUnauthorized: isVerified && !this.#describesChains,
        // SNI carries names only (RFC 6066 section 3).
        ...(destination.isAddress ? {} : { servername: destination.host }),
        ...(session === undefined ? {} : { session }),
        checkServerIdentity: (_name, certificate) => checkIdentity(destination.host, certificate),
      });
      const timer = setTimeout(() => {
        fail(
          new ProxyError(
            "upstream.timeout",
            `${authority} did not finish its TLS handshake in ${this.#handshakeTimeoutMs} ms (limits.connect_timeout)`,
            { hop: "tls" },
          ),
        );
      }, this.#handshakeTimeoutMs);
      const noteAsked = (): boolean => {
        const isAsked = asksForCertificate(secured);
        if (isAsked && !this.#asking.has(authority)) this.#asking.set(authority, "unanswered");
        return isAsked;
      };
      // Ahead of Node's own listener, which leaves nothing to ask.
      secured.prependOnceListener("end", noteAsked);
      const fail = (error: unknown): void => {
        clearTimeout(timer);
        noteAsked();
        sessions?.delete(authority);
        secured.destroy();
        socket.destroy();
        reject(error instanceof ProxyError ? error : tlsFault(authority, this.#trustKey, error));
      };
      secured.once("error", fail);
      secured.on("session", (ticket) => sessions?.set(authority, ticket));
      secured.once("secureConnect", () => {
        if (isVerified && !secured.authorized) {
          fail(new Error(`${String(secured.authorizationError)}, presented: ${chainOf(secured)}`));
          return;
        }
        clearTimeout(timer);
        if (!noteAsked()) this.#asking.delete(authority);
        secured.removeListener("error", fail);
        secured.on("error", () => secured.destroy());
        resolve(secured);
      });
    });
  }

  /**
   * The fault of a connection to an origin that asks for a client certificate, in words that say what to do; the same fault
   * where it asked for none. In TLS 1.3 it judges the certificate when the handshake is over for us (RFC 8446 section 4.4.2.4).
   */
  explained(
    fault: ProxyError,
    { authority, scheme }: Destination,
    shown: string | undefined,
  ): ProxyError {
    const state = scheme === "https" ? this.#asking.get(authority) : undefined;
    if (state === undefined) return fault;
    const code = codeOf(fault.cause);
    // One that has answered before takes what it is shown, unless it says otherwise in an alert.
    const isCut =
      state === "unanswered" && (fault.code === "upstream.reset" || code === "ECONNRESET");
    if (!isCut && !code.includes("ALERT")) return fault;
    const words = certificateWords(authority, shown);
    return new ProxyError("upstream.tls", words, { cause: fault, hop: "tls" });
  }

  /** The origin has answered a request. */
  answered({ authority }: Destination): void {
    if (this.#asking.has(authority)) this.#asking.set(authority, "answered");
  }

  #contextFor(certificate: ClientCertificate | undefined): tls.SecureContext {
    if (certificate === undefined) return this.#context;
    let context = this.#certified.get(certificate);
    if (context === undefined) {
      const { certificateChain: cert, privateKey } = certificate;
      context = tls.createSecureContext({
        ...this.#contextOptions,
        cert,
        key: privateKey.reveal(),
      });
      this.#certified.set(certificate, context);
    }
    return context;
  }
}

const maxSessions = 1_024;
const maxChain = 8;

/** The certificates from the server's own upward, as subject and issuer. */
function chainOf(secured: tls.TLSSocket): string {
  const names: string[] = [];
  let certificate: tls.DetailedPeerCertificate | undefined = secured.getPeerCertificate(true);
  while (certificate?.subject !== undefined && names.length < maxChain) {
    names.push(`${nameOf(certificate.subject)} (issued by ${nameOf(certificate.issuer)})`);
    const above: tls.DetailedPeerCertificate | undefined = certificate.issuerCertificate;
    // A root is its own issuer.
    certificate = above?.fingerprint256 === certificate.fingerprint256 ? undefined : above;
  }
  return names.join(", ") || "no certificate";
}

function nameOf({ CN, O }: tls.Certificate): string {
  const name = CN ?? O ?? "unnamed";
  // The peer chose the text: control characters are removed, and its length is bounded.
  return String(name)
    .replace(/[^\x20-\x7e]/g, "?")
    .slice(0, 100);
}

/**
 * RFC 9525 section 6: the name must stand in subjectAltName; the common name does not count. Node accepts it where the
 * other names are of kinds that it does not compare, so that it is not shown one.
 */
function checkIdentity(host: string, certificate: tls.PeerCertificate): Error | undefined {
  if (certificate.subjectaltname === undefined) {
    return new Error(`its certificate has no subjectAltName for ${host}`);
  }
  return tls.checkServerIdentity(host, { ...certificate, subject: {} });
}

/** A server names signature algorithms to a client only when it asks for a certificate. */
function asksForCertificate(secured: tls.TLSSocket): boolean {
  try {
    return secured.getSharedSigalgs().length > 0;
  } catch {
    // Nothing is left of a connection that was reset.
    return false;
  }
}

function codeOf(cause: unknown): string {
  return cause instanceof Error && "code" in cause ? String(cause.code) : "";
}

function certificateWords(authority: string, shown: string | undefined): string {
  if (shown !== undefined)
    return `${authority} asks for a client certificate and does not take the one of ${shown}`;
  const ways =
    "name one in tls_bridge.client_certificates, or list the host in tls_bridge.passthrough_hosts so that the client's own reaches it";
  return `${authority} asks for a client certificate and is shown none: ${ways}`;
}

function tlsFault(authority: string, trustKey: string, cause: unknown): ProxyError {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  const why = code === undefined ? messageOf(cause) : `${messageOf(cause)} (${code})`;
  return new ProxyError(
    "upstream.tls",
    `the TLS connection to ${authority} could not be verified: ${why}; if its authority is to be trusted, add it to ${trustKey}`,
    { cause, hop: "tls" },
  );
}
