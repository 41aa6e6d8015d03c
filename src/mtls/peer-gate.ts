/** Mutual TLS in one direction: what handshakes are made with, which peers they let in, and for how long. */
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { PeerConnection } from "./peer-connection.ts";
import type { PeerContext, PeerRefusal, PeerTrust } from "./peer-trust.ts";

/** Hears of peers. */
export interface PeerObserver {
  /** One was refused. */
  refused(refusal: PeerRefusal, address: string): void;
  /** Open connections were given up, because what is trusted has changed. */
  revoked(refusal: PeerRefusal, connections: number): void;
}

/** How connections are given up. */
export interface PeerGateOptions {
  readonly observer: PeerObserver;
  /** For exchanges under way when their peer is no longer trusted. */
  readonly graceMs: number;
  /** Called after connections were given up that somebody else ends. */
  onRevoked?(): void;
}

/** Holds what is in force now, and every connection that was let in. */
export class PeerGate {
  readonly #options: PeerGateOptions;
  readonly #open = new Set<PeerConnection>();
  readonly #bySocket = new WeakMap<Socket, PeerConnection>();
  #trust: PeerTrust;
  #context: PeerContext | undefined;
  /** Set from the first handshake on: nothing is dialled or read for a gate that nobody comes to. */
  #unsubscribe: (() => void) | undefined;

  constructor(trust: PeerTrust, options: PeerGateOptions) {
    this.#options = options;
    this.#trust = trust;
  }

  /** Another generation of the file is in force. */
  use(trust: PeerTrust): void {
    this.close();
    this.#trust = trust;
    if (this.#open.size > 0) this.#subscribe();
    this.#changed();
  }

  /** What a handshake is made with that begins now. The same object while nothing has changed. */
  context(): PeerContext | PeerRefusal {
    this.#subscribe();
    // An SVID that expires is no change that anybody tells of.
    if (this.#context !== undefined && this.#trust.source.current() !== undefined)
      return this.#context;
    const context = this.#trust.context();
    this.#context = context.kind === "refused" ? undefined : context;
    return context;
  }

  /** The connection behind a handshake that OpenSSL verified, or why it is to be refused. */
  admit(socket: TLSSocket, context: PeerContext): PeerConnection | PeerRefusal {
    const judged = this.#trust.judge(socket.getPeerX509Certificate(), context);
    if (judged.kind === "refused") return judged;
    const connection = new PeerConnection(socket, judged);
    this.#open.add(connection);
    this.#bySocket.set(socket, connection);
    socket.once("close", () => this.#open.delete(connection));
    return connection;
  }

  /** Tells of a refusal and destroys the connection. */
  refuse(refusal: PeerRefusal, socket: Socket): void {
    this.#options.observer.refused(refusal, socket.remoteAddress ?? "");
    socket.destroy();
  }

  /** The connection that a socket is one end of; undefined for one without mutual TLS. */
  of(socket: Socket): PeerConnection | undefined {
    return this.#bySocket.get(socket);
  }

  /** Hears of no changes any more. */
  close(): void {
    this.#unsubscribe?.();
    this.#unsubscribe = undefined;
  }

  #subscribe(): void {
    this.#unsubscribe ??= this.#trust.source.onChange(() => this.#changed());
  }

  #changed(): void {
    this.#context = undefined;
    const { observer, graceMs } = this.#options;
    const refusals = new Map<string, { readonly refusal: PeerRefusal; count: number }>();
    for (const connection of this.#open) {
      const refusal =
        connection.revoked === undefined ? this.#trust.objection(connection.peer) : undefined;
      if (refusal === undefined) continue;
      connection.revoke(refusal, graceMs);
      const told = refusals.get(refusal.message) ?? { refusal, count: 0 };
      told.count += 1;
      refusals.set(refusal.message, told);
    }
    for (const { refusal, count } of refusals.values()) observer.revoked(refusal, count);
    if (refusals.size > 0) this.#options.onRevoked?.();
  }
}
