/** The immutable facts of one connection or request: its client, surface and destination. */
import { threadId } from "node:worker_threads";
import { peerAddress } from "../net/peer-address.ts";
import type { Destination } from "../net/destination.ts";
import type { PeerProcess } from "../net/kernel/peer-process.ts";

/** Inbound comes to the agent, outbound leaves it. */
export type Direction = "inbound" | "outbound";

/** The surface that a flow arrived by. `bridge` is HTTP inside a TLS connection that this process opened. */
export type Transport = "http" | "connect" | "bridge" | "transparent";

/** A peer of mutual TLS, and the connection to it. */
export interface TlsPeer {
  readonly spiffeId: string;
  /** `TLS 1.3`. */
  readonly version: string;
  /** By its name in RFC 8446. */
  readonly cipherSuite: string;
}

/** What the TLS of a client's connection proved; nothing of it came from a header field. */
export interface ClientTls {
  /**
   * Base64url SHA-256 of the client's certificate (`x5t#S256`), whose key the handshake proved. Whether an authority
   * vouches for it is another question.
   */
  readonly certificateThumbprint?: string | undefined;
  /** The same certificate in PEM. */
  readonly certificate?: string | undefined;
  /** The name that the client asked for (SNI). */
  readonly serverName?: string | undefined;
  /** Of mutual TLS between sidecars (`mtls`): who a bundle vouches for. */
  readonly peer?: TlsPeer | undefined;
}

/** The peer of an accepted connection. */
export interface Client {
  readonly address: string;
  readonly port: number;
  /** The authenticated name of the agent, where `callers` asks for one; inbound, the SPIFFE ID of a peer. */
  readonly caller?: string | undefined;
  /** Absent where the client spoke to us without TLS. */
  readonly tls?: ClientTls | undefined;
  /** The process behind the connection, or why it is not known; present where a plugin asked (`Plugin.callerLinks`). */
  readonly process?: PeerProcess;
}

/** A client's name, as far as it is known: the agent's, else that of its executable, else its address. */
export function callerOf({ address, caller, process: peer }: Client): string {
  return caller ?? (peer?.kind === "resolved" ? peer.executable : address);
}

/** One connection (stage `connect`) or one request (stage `request`), frozen when a listener made it. */
export interface Flow {
  readonly id: string;
  readonly direction: Direction;
  readonly transport: Transport;
  readonly client: Client;
  readonly destination: Destination;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  /** The tunnel that carried this request, when there was one. */
  readonly parentId?: string | undefined;
  /** Address and port that the client dialled itself, where the kernel redirected it; `destination` is what is dialled. */
  readonly captured?: string | undefined;
}

/** Threads that begin in one millisecond must not give out the same ids. */
const ofThread = threadId === 0 ? "" : `t${threadId}`;
const idPrefix = `${process.pid.toString(36)}${Date.now().toString(36)}${ofThread}`;
let flowCounter = 0;

/** Makes a Flow. Only listeners and the bridge call it: policy never sees a flow that it could edit. */
export function makeFlow(facts: Omit<Flow, "id" | "startedAt">, now: number = Date.now()): Flow {
  flowCounter = (flowCounter + 1) % Number.MAX_SAFE_INTEGER;
  const id = `${idPrefix}-${flowCounter.toString(36)}`;
  const address = peerAddress(facts.client.address);
  const client = address === facts.client.address ? facts.client : { ...facts.client, address };
  return Object.freeze({ ...facts, client, id, startedAt: now });
}
