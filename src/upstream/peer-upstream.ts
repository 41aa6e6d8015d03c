/** Plain requests of agents over mutual TLS: a dial to another sidecar is not finished before that has proved who it is. */
import type net from "node:net";
import tls from "node:tls";
import { ProxyError } from "../errors.ts";
import { type AbortSource, cancelled } from "../net/abort-source.ts";
import type { IpAddress } from "../net/address.ts";
import type { Destination } from "../net/destination.ts";
import type { PeerConnection } from "../mtls/peer-connection.ts";
import type { PeerGate } from "../mtls/peer-gate.ts";
import {
  handshakeRefusal,
  type PeerContext,
  type PeerRefusal,
  refusal,
} from "../mtls/peer-trust.ts";
import type { TlsPeer } from "../pipeline/flow.ts";
import type { Permit } from "../pipeline/pipeline.ts";
import type { Dial } from "./dial.ts";
import type { AbsoluteForm, ConnectOptions, Upstream } from "./upstream.ts";

/** Options of {@link PeerUpstream}. */
export interface PeerUpstreamOptions {
  readonly gate: PeerGate;
  /** Hosts that are spoken to over mutual TLS alone. */
  readonly hosts: { matches(host: string): boolean };
  readonly handshakeTimeoutMs: number;
  readonly onDial?: ((dial: Dial) => void) | undefined;
}

/** An upstream whose connections to http destinations are of mutual TLS. There is no way back to plain ones. */
export class PeerUpstream implements Upstream {
  readonly #upstream: Upstream;
  readonly #options: PeerUpstreamOptions;
  /** By authority, while they are open. */
  readonly #newest = new Map<string, PeerConnection>();

  constructor(upstream: Upstream, options: PeerUpstreamOptions) {
    this.#upstream = upstream;
    this.#options = options;
  }

  /** Who is behind the newest connection to the destination that is open. */
  peerOf({ authority }: Destination): TlsPeer | undefined {
    return this.#newest.get(authority)?.tls.peer;
  }

  /** Whether requests to the destination leave over mutual TLS. */
  isMeant({ direction, destination }: Pick<Permit, "direction" | "destination">): boolean {
    // The agent behind the reverse proxy is no other sidecar; https destinations have a TLS of their own.
    const isPlain = direction === "outbound" && destination.scheme === "http";
    return isPlain && this.#options.hosts.matches(destination.host);
  }

  confirm(permit: Permit, captured: IpAddress, signal: AbortSource): Promise<void> {
    return this.#upstream.confirm(permit, captured, signal);
  }

  /** A parent proxy would see the request; it gets a tunnel instead. */
  absoluteForm(permit: Permit): AbsoluteForm | undefined {
    return this.isMeant(permit) ? undefined : this.#upstream.absoluteForm(permit);
  }

  async connect(permit: Permit, options: ConnectOptions): Promise<net.Socket> {
    if (!this.isMeant(permit)) return this.#upstream.connect(permit, options);
    const { destination, direction, flowId } = permit;
    const context = this.#options.gate.context();
    if (context.kind === "refused") throw refused(destination, context);
    const socket = await this.#upstream.connect(permit, options);
    const { host } = destination;
    const dial = { direction, flowId, phase: "tls", startedAt: performance.now(), host } as const;
    try {
      const secured = await this.#secure(socket, destination, context, options);
      this.#options.onDial?.(dial);
      return secured;
    } catch (error) {
      const code = error instanceof ProxyError ? error.code : "internal.fault";
      this.#options.onDial?.({ ...dial, error: code });
      throw error;
    }
  }

  #secure(
    socket: net.Socket,
    destination: Destination,
    context: PeerContext,
    { signal, http2 = false }: ConnectOptions,
  ): Promise<tls.TLSSocket> {
    const { gate, handshakeTimeoutMs } = this.#options;
    return new Promise((resolve, reject) => {
      const secured = tls.connect({
        socket,
        secureContext: context.secure,
        ALPNProtocols: [http2 ? "h2" : "http/1.1"],
        // Who it is, its SPIFFE ID says; names of hosts are not in the certificates of workloads.
        checkServerIdentity: () => undefined,
      });
      const settle = (): void => {
        clearTimeout(timer);
        signal.removeEventListener("abort", onAbort);
        secured.off("error", onError).on("error", ignore);
      };
      const fail = (error: Error): void => {
        settle();
        secured.destroy();
        socket.destroy();
        reject(error);
      };
      const turnAway = (refusal: PeerRefusal): void => {
        gate.refuse(refusal, secured);
        fail(refused(destination, refusal));
      };
      const onError = (error: Error): void => turnAway(handshakeRefusal(error, {}));
      const onAbort = (): void => fail(cancelled());
      const timer = setTimeout(() => {
        const limit = `${handshakeTimeoutMs} ms (limits.connect_timeout)`;
        const message = `${destination.authority} did not finish its TLS handshake in ${limit}`;
        fail(new ProxyError("upstream.timeout", message, { hop: "tls" }));
      }, handshakeTimeoutMs);
      signal.addEventListener("abort", onAbort, { once: true });
      secured.on("error", onError);
      secured.once("secureConnect", () => {
        const admitted = admit(gate, secured, context, http2);
        if (admitted.kind === "refused") {
          turnAway(admitted);
          return;
        }
        settle();
        // Whoever sends over it ends it; see OriginPools.renew().
        admitted.begin();
        this.#newest.set(destination.authority, admitted);
        secured.once("close", () => {
          if (this.#newest.get(destination.authority) === admitted)
            this.#newest.delete(destination.authority);
        });
        resolve(secured);
      });
      if (signal.aborted) onAbort();
    });
  }
}

/** The peer behind a handshake, or why it is refused. */
function admit(
  gate: PeerGate,
  secured: tls.TLSSocket,
  context: PeerContext,
  http2: boolean,
): PeerConnection | PeerRefusal {
  // A server that knows nothing of ALPN names none, and would not understand.
  if (http2 && secured.alpnProtocol !== "h2")
    return refusal("handshake", "the peer does not speak HTTP/2, which this request needs");
  return gate.admit(secured, context);
}

function refused({ authority }: Destination, { message }: PeerRefusal): ProxyError {
  const text = `${authority} is reached over mutual TLS only (mtls), and that failed: ${message}`;
  return new ProxyError("upstream.tls", text, { hop: "tls" });
}

function ignore(): void {
  // The owner hears of it by its own listener or by `close`.
}
