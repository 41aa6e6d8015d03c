/** Terminates TLS in front of a listener and gives the decrypted connections to the HTTP server. */
import type { AddressInfo, Server, Socket } from "node:net";
import tls, { type TLSSocket } from "node:tls";
import { serverProfile } from "../net/tls-profile.ts";
import type { HttpLimits } from "../proxy/exchange/http-server.ts";
import { acceptWithin } from "./bind.ts";

/** Key material as PEM. */
export interface TlsMaterial {
  readonly kind: "certificate";
  readonly cert: string;
  readonly key: string;
  /** Authorities of client certificates; without them no client is asked for one. */
  readonly clientCa?: string;
}

/** Limits of connections, those in their handshake included. */
export interface TlsFrontLimits extends Pick<HttpLimits, "maxConnections" | "shared"> {
  readonly handshakeTimeoutMs: number;
}

/** Callbacks for connections. */
export interface TlsFrontEvents {
  onSecure(socket: tls.TLSSocket): void;
  /** A handshake that failed, or one connection too many. */
  onRefused(why: "connections" | "malformed"): void;
}

/**
 * In this order, whatever the client's: a client of Go offers its proxy HTTP/2 as it offers it to an origin, puts it first,
 * and then speaks HTTP/1.1 to a proxy that has chosen it, or nothing at all.
 */
const protocols = ["http/1.1", "http/1.0", "h2"] as const;

/** Accepts connections, shakes hands, and hands them on. */
export class TlsFront {
  readonly server: Server;
  /** Does not listen: it is given connections that have their place. */
  readonly #handshakes: tls.Server;

  /** Throws when the material is no certificate with its key. */
  constructor(material: TlsMaterial, limits: TlsFrontLimits, events: TlsFrontEvents) {
    this.#handshakes = tls.createServer({
      ...contextOf(material),
      requestCert: material.clientCa !== undefined,
      // A client without a certificate may still have a password; one with neither gets a response that says so.
      rejectUnauthorized: false,
      handshakeTimeout: limits.handshakeTimeoutMs,
      ALPNCallback: ({ protocols: offered }) => protocols.find((one) => offered.includes(one)),
    });
    this.#handshakes.on("tlsClientError", () => events.onRefused("malformed"));
    this.#handshakes.on("secureConnection", (socket) => events.onSecure(mayEndFirst(socket)));
    this.server = acceptWithin(
      limits,
      (socket) => shakeHands(this.#handshakes, socket),
      () => events.onRefused("connections"),
    );
  }

  /** Uses other key material for new handshakes; throws, and changes nothing, when it is invalid. */
  renew(material: TlsMaterial): void {
    // Created only to validate: the server would accept a certificate without its key.
    tls.createSecureContext(contextOf(material));
    this.#handshakes.setSecureContext(contextOf(material));
  }

  get address(): AddressInfo {
    return this.server.address() as AddressInfo;
  }
}

/** Begins a handshake, which is over when its client ends: nobody else would see that, and it would keep its place. */
export function shakeHands(server: tls.Server, socket: Socket): void {
  socket.allowHalfOpen = false;
  server.emit("connection", socket);
}

/**
 * Behind its handshake a client that has said all it had to say still hears the other side. One of HTTP/2 says so on each
 * stream: whose connection ends is gone, and nothing is asked of origins for it any longer.
 */
export function mayEndFirst(socket: TLSSocket): TLSSocket {
  socket.allowHalfOpen = socket.alpnProtocol !== "h2";
  return socket;
}

function contextOf({ cert, key, clientCa }: TlsMaterial): tls.SecureContextOptions {
  const trust = clientCa === undefined ? {} : { ca: clientCa };
  return { ...serverProfile, cert, key, minVersion: "TLSv1.2", ...trust };
}
