/** TLS between clients and a listener: accepts, shakes hands, and gives what comes out to the HTTP server. */
import type { AddressInfo } from "node:net";
import tls from "node:tls";

/** Key material as PEM. */
export interface TlsMaterial {
  readonly cert: string;
  readonly key: string;
  /** Authorities of client certificates; without them no client is asked for one. */
  readonly clientCa?: string;
}

/** Limits of the handshake. */
export interface TlsFrontLimits {
  readonly handshakeTimeoutMs: number;
  /** Connections, those in their handshake included. */
  readonly maxConnections: number;
}

/** What happens to connections. */
export interface TlsFrontEvents {
  onSecure(socket: tls.TLSSocket): void;
  /** A handshake that failed, or one connection too many. */
  onRefused(why: "connections" | "malformed"): void;
}

/** A TLS server that serves nothing itself. */
export class TlsFront {
  readonly server: tls.Server;

  /** Throws when the material is no certificate with its key. */
  constructor(material: TlsMaterial, limits: TlsFrontLimits, events: TlsFrontEvents) {
    this.server = tls.createServer({
      ...contextOf(material),
      requestCert: material.clientCa !== undefined,
      // Whoever has no certificate may still have a password; who has neither is refused by name.
      rejectUnauthorized: false,
      handshakeTimeout: limits.handshakeTimeoutMs,
      ALPNProtocols: ["http/1.1", "http/1.0"],
      noDelay: true,
    });
    this.server.maxConnections = limits.maxConnections;
    this.server.on("drop", () => events.onRefused("connections"));
    this.server.on("tlsClientError", () => events.onRefused("malformed"));
    this.server.on("secureConnection", (socket) => events.onSecure(socket));
  }

  /** Uses other key material for the handshakes that come; throws, and changes nothing, when it is no good. */
  renew(material: TlsMaterial): void {
    // Made for its errors: the server would take a certificate without its key.
    tls.createSecureContext(contextOf(material));
    this.server.setSecureContext(contextOf(material));
  }

  get address(): AddressInfo {
    return this.server.address() as AddressInfo;
  }
}

function contextOf({ cert, key, clientCa }: TlsMaterial): tls.SecureContextOptions {
  return { cert, key, minVersion: "TLSv1.2", ...(clientCa === undefined ? {} : { ca: clientCa }) };
}
