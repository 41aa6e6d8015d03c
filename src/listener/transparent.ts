/**
 * Redirected connections: the kernel reports the original destination, the first bytes name the host.
 *
 * A name becomes the destination that is judged, resolved and dialled; the address that the client dialled never is.
 * Without a name the destination is the address, and only rules for addresses can allow it.
 */
import type { Socket } from "node:net";
import { ProxyError } from "../errors.ts";
import { HeaderList } from "../http/headers.ts";
import { isHostName } from "../net/client-hello.ts";
import { type Destination, parseAuthority } from "../net/destination.ts";
import type { OriginalDestinations } from "../net/kernel/original-destination.ts";
import { sniff, type Sniffed } from "../net/sniff.ts";
import { makeFlow } from "../pipeline/flow.ts";
import type { BridgeServer } from "../proxy/tunnel/bridge-server.ts";
import { rawReplies, tlsReplies } from "../proxy/tunnel/captured-replies.ts";
import type { SurfaceServices } from "../proxy/exchange/arrival.ts";
import { type Admitted, admit } from "../proxy/flow/admission.ts";
import { denialOf, renderDenial } from "../proxy/flow/reply.ts";
import type { Runtime } from "../proxy/flow/runtime.ts";
import { tunnel } from "../proxy/tunnel/tunnel.ts";
import { CapturedAcceptor } from "./captured-acceptor.ts";
import { type Captured, capturedAt, type Pin } from "./captured.ts";
import { CapturedHttp, notRedirected } from "./captured-http.ts";
import type { HttpLimits } from "../proxy/exchange/http-server.ts";
import type { BindAddress } from "./bind.ts";
import { Listener } from "./listener.ts";

/** How the first bytes of captured connections are read. */
export interface TransparentOptions {
  readonly originals: OriginalDestinations;
  readonly pin: Pin;
  /** How long a client may take to show its first bytes; one that sends nothing waits for the server to send first. */
  readonly sniffTimeoutMs: number;
  /** Ports where servers send first: no client bytes are awaited, and connections are judged by address. */
  readonly opaquePorts: ReadonlySet<number>;
  readonly limits: HttpLimits;
  /** Connections of this process; one that arrives here is a loop. */
  readonly ownDials: { has(address: string | undefined, port: number | undefined): boolean };
}

const nothing = Buffer.alloc(0);

/** The listener for redirected connections. */
export class TransparentListener {
  readonly #services: SurfaceServices;
  readonly #bridge: BridgeServer;
  readonly #options: TransparentOptions;
  readonly #http: CapturedHttp;
  readonly #httpListener: Listener;
  readonly #acceptor: CapturedAcceptor;

  constructor(services: SurfaceServices, bridge: BridgeServer, options: TransparentOptions) {
    this.#services = services;
    this.#bridge = bridge;
    this.#options = options;
    // A connection has its place when it was accepted.
    const inner = { ...options.limits, shared: undefined };
    this.#http = new CapturedHttp(services, inner);
    this.#httpListener = new Listener(this.#http, inner, services);
    const { metrics } = services.recorder;
    const { maxConnections, shared } = options.limits;
    this.#acceptor = new CapturedAcceptor(
      { originals: options.originals, maxConnections, shared, metrics },
      (socket) => void this.#serve(socket),
    );
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#acceptor.connections;
  }

  /** Serves a connection that was accepted in place of its destination, whose address it has. */
  adopt(socket: Socket): void {
    this.#acceptor.adopt(socket);
  }

  /** Binds and resolves with what was bound; rejects with `listener.unavailable` when it is taken. */
  bind(address: BindAddress): Promise<BindAddress> {
    return this.#acceptor.bind(address);
  }

  /** Stops accepting, lets running exchanges finish until the deadline, then cuts what is left. */
  close(deadlineMs: number): Promise<void> {
    return this.#acceptor.close(deadlineMs, this.#httpListener.close(deadlineMs));
  }

  /** Never rejects. */
  async #serve(socket: Socket): Promise<void> {
    let first: Sniffed = { kind: "opaque", bytes: 0 };
    const head = this.#services.heads.add(socket);
    try {
      const captured = this.#capturedOf(socket);
      const { opaquePorts, ownDials, sniffTimeoutMs: timeoutMs } = this.#options;
      if (captured === undefined || !opaquePorts.has(captured.original.port))
        first = await sniff(socket, { timeoutMs, requestLineSuffices: true });
      head.close();
      if (ownDials.has(socket.remoteAddress, socket.remotePort)) throw comesFromUs();
      this.#route(socket, captured, first);
    } catch (error) {
      this.#refuse(socket, first, error);
    }
  }

  /** Undefined where the connection was made to this listener itself. */
  #capturedOf(socket: Socket): Captured | undefined {
    const original = this.#acceptor.originalOf(socket);
    return original === undefined ? undefined : capturedAt(original, this.#options.pin);
  }

  /** Throws ProxyError for what is refused before there is a flow. */
  #route(socket: Socket, captured: Captured | undefined, first: Sniffed): void {
    switch (first.kind) {
      case "closed":
        socket.destroy();
        return;
      case "http":
        this.#http.add(socket, captured);
        this.#httpListener.adopt(socket);
        return;
      case "tls":
        break;
      case "malformed":
        throw new ProxyError("request.malformed", `broken first bytes: ${first.reason}`);
      case "timeout":
        if (first.bytes === 0) break;
        throw new ProxyError(
          "request.timeout",
          "the client did not finish its first message in time",
        );
      case "opaque":
        break;
    }
    this.#tunnel(socket, captured, first);
  }

  #tunnel(socket: Socket, captured: Captured | undefined, first: Sniffed): void {
    if (captured === undefined) throw notRedirected();
    const isTls = first.kind === "tls";
    const hasSpoken = first.kind === "opaque" && first.bytes > 0;
    const destination = destinationOf(captured, isTls ? first.sni : undefined);
    const services = this.#services;
    const { authority, confirm, original } = captured;
    const read = (runtime: Runtime): Admitted => ({
      client: services.callers.clientOf(socket, runtime, { reached: original }),
      run: (client, done) =>
        tunnel(
          services,
          this.#bridge,
          {
            runtime,
            flow: makeFlow({
              direction: "outbound",
              transport: "transparent",
              client,
              destination,
              captured: authority,
            }),
            client: socket,
            head: nothing,
            headers: new HeaderList([]),
            replies: isTls ? tlsReplies : rawReplies,
            captured: { isTls, hasSpoken, confirm },
          },
          done,
        ),
    });
    admit(services.runtimes.acquire(), read, (error) => {
      this.#refuse(socket, { kind: isTls ? "tls" : "opaque" }, error);
    });
  }

  #refuse(socket: Socket, first: { readonly kind: Sniffed["kind"] }, error: unknown): void {
    this.#services.recorder.malformed(error, {
      surface: "transparent",
      client: socket.remoteAddress ?? "",
      method: "",
    });
    const replies = first.kind === "tls" ? tlsReplies : rawReplies;
    if (!socket.destroyed) replies.refused(socket, renderDenial(denialOf(error)));
    socket.destroySoon();
  }
}

/** The name that a client asks for, at the port that it dialled; its address where it names no host. */
function destinationOf({ original, authority }: Captured, name: string | undefined): Destination {
  if (name === undefined) return parseAuthority(authority, "tcp");
  if (!isHostName(name.replace(/\.$/, "")))
    throw new ProxyError("request.misdirected", "the server name of the client is not a host name");
  return parseAuthority(`${name}:${original.port}`, "tcp");
}

/** A connection of the proxy itself that came back to it. */
export function comesFromUs(): ProxyError {
  return new ProxyError(
    "request.loop",
    "the proxy's own connection was redirected back to it: run it as the user that the capture exempts (PROXY_UID of proxy-init)",
  );
}
