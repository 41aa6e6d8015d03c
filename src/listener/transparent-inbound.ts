/**
 * Inbound connections that the kernel redirected on their way to the agent: validated as on the reverse port, and
 * forwarded to where they were going, so that nobody in the network can go around the proxy.
 *
 * Only addresses of this machine are forwarded to, and no port of the proxy itself.
 */
import type { Socket } from "node:net";
import { ProxyError } from "../errors.ts";
import { HeaderList } from "../http/headers.ts";
import { type IpAddress, parseAddress } from "../net/address.ts";
import { parseAuthority } from "../net/destination.ts";
import type { OriginalDestinations } from "../net/kernel/original-destination.ts";
import type { SocketEnd } from "../net/kernel/socket-table.ts";
import { sniff, type Sniffed } from "../net/sniff.ts";
import { makeFlow } from "../pipeline/flow.ts";
import type { SurfaceServices } from "../proxy/exchange/arrival.ts";
import type { HttpLimits } from "../proxy/exchange/http-server.ts";
import { admit } from "../proxy/flow/admission.ts";
import { denialOf, renderDenial } from "../proxy/flow/reply.ts";
import type { BridgeServer } from "../proxy/tunnel/bridge-server.ts";
import { rawReplies, tlsReplies } from "../proxy/tunnel/captured-replies.ts";
import { tunnel } from "../proxy/tunnel/tunnel.ts";
import { CapturedAcceptor } from "./captured-acceptor.ts";
import { capturedAt } from "./captured.ts";
import type { BindAddress } from "./bind.ts";
import type { Listener } from "./listener.ts";
import type { Behind, FindBackend } from "./reverse.ts";
import { comesFromUs } from "./transparent.ts";

/** Whose connections are taken, and where they may go. */
export interface TransparentInboundOptions {
  readonly originals: OriginalDestinations;
  readonly limits: HttpLimits;
  /** Ports whose connections are passed on unread: the file says that what they speak is no HTTP. */
  readonly passthroughPorts: ReadonlySet<number>;
  /** Whether an address is one of this machine. */
  isLocal(this: void, address: IpAddress): boolean;
  /** Whether the proxy itself listens there. */
  isOwn(this: void, address: IpAddress, port: number): boolean;
  /** Connections of this process; one that arrives here is a loop. */
  readonly ownDials: { has(address: string | undefined, port: number | undefined): boolean };
  /** Reads requests as the reverse port does, from connections that are given to it; `readsTls` where it shakes hands. */
  readonly makeHttp: (behind: FindBackend) => {
    readonly listener: Listener;
    readonly readsTls: boolean;
  };
}

/** The listener for redirected inbound connections. */
export class TransparentInboundListener {
  readonly #services: SurfaceServices;
  readonly #bridge: BridgeServer;
  readonly #options: TransparentInboundOptions;
  readonly #acceptor: CapturedAcceptor;
  readonly #http: { readonly listener: Listener; readonly readsTls: boolean };
  /** Where open connections were going, by their ends: TLS hides the socket that it stands on. */
  readonly #behind = new Map<string, Behind>();

  constructor(services: SurfaceServices, bridge: BridgeServer, options: TransparentInboundOptions) {
    this.#services = services;
    this.#bridge = bridge;
    this.#options = options;
    this.#http = options.makeHttp((socket) => this.#behindOf(socket));
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

  /** Binds and resolves with what was bound; rejects with `listener.unavailable` when it is taken. */
  bind(address: BindAddress): Promise<BindAddress> {
    return this.#acceptor.bind(address);
  }

  /** Stops accepting, lets running exchanges finish until the deadline, then cuts what is left. */
  close(deadlineMs: number): Promise<void> {
    return this.#acceptor.close(deadlineMs, this.#http.listener.close(deadlineMs));
  }

  #behindOf(socket: Socket): Behind {
    const behind = this.#behind.get(endsOf(socket));
    if (behind === undefined) throw notRedirected();
    return behind;
  }

  /** Never rejects. */
  async #serve(socket: Socket): Promise<void> {
    let first: Sniffed["kind"] = "opaque";
    try {
      const original = this.#checked(socket);
      const { passthroughPorts, limits } = this.#options;
      if (passthroughPorts.has(original.port)) {
        this.#pass(socket, original);
        return;
      }
      this.#remember(socket, original);
      if (!this.#http.readsTls) {
        const head = this.#services.heads.add(socket);
        const timeoutMs = limits.headerTimeoutMs;
        const found = await sniff(socket, { timeoutMs, requestLineSuffices: true });
        head.close();
        first = found.kind;
        if (found.kind === "closed" || socket.destroyed) {
          socket.destroy();
          return;
        }
        if (found.kind !== "http") throw noHttp(found, original);
      }
      this.#http.listener.take(socket);
    } catch (error) {
      this.#refuse(socket, first, error);
    }
  }

  /** The local end that the client dialled; throws ProxyError for what is not taken. */
  #checked(socket: Socket): SocketEnd {
    const { isLocal, isOwn, ownDials } = this.#options;
    const original = this.#acceptor.originalOf(socket);
    if (original === undefined) throw notRedirected();
    if (ownDials.has(socket.remoteAddress, socket.remotePort)) throw comesFromUs();
    const address = parseAddress(original.address);
    const { authority } = capturedAt(original, "off");
    if (address === undefined || !isLocal(address)) {
      throw new ProxyError(
        "request.misdirected",
        `${authority} is no address of this machine: inbound connections are forwarded to the agent beside the proxy only`,
      );
    }
    if (isOwn(address, original.port)) {
      throw new ProxyError(
        "request.misdirected",
        `${authority} is the proxy's own: exempt its ports from the redirect (INBOUND_PORTS_EXCLUDE of proxy-init)`,
      );
    }
    return original;
  }

  #remember(socket: Socket, original: SocketEnd): void {
    const { authority } = capturedAt(original, "off");
    const key = endsOf(socket);
    const behind = {
      destination: parseAuthority(authority, "http"),
      basePath: "",
      captured: authority,
    };
    this.#behind.set(key, behind);
    socket.once("close", () => {
      if (this.#behind.get(key) === behind) this.#behind.delete(key);
    });
  }

  /** Passes a connection on as it is. */
  #pass(socket: Socket, original: SocketEnd): void {
    const services = this.#services;
    const { authority, confirm } = capturedAt(original, "off");
    const { remoteAddress: address = "", remotePort: port = 0 } = socket;
    admit(
      services.runtimes.acquire(),
      (runtime) => ({
        client: { address, port },
        run: (client, done) =>
          tunnel(
            services,
            this.#bridge,
            {
              runtime,
              flow: makeFlow({
                direction: "inbound",
                transport: "transparent",
                client,
                destination: parseAuthority(authority, "tcp"),
                captured: authority,
              }),
              client: socket,
              head: Buffer.alloc(0),
              headers: new HeaderList([]),
              replies: rawReplies,
              captured: { isTls: false, confirm },
              isExempt: true,
            },
            done,
          ),
      }),
      (error) => this.#refuse(socket, "opaque", error),
    );
  }

  #refuse(socket: Socket, first: Sniffed["kind"], error: unknown): void {
    this.#services.recorder.malformed(error, {
      surface: "reverse",
      client: socket.remoteAddress ?? "",
      method: "",
    });
    const replies = first === "tls" ? tlsReplies : rawReplies;
    if (!socket.destroyed) replies.refused(socket, renderDenial(denialOf(error)));
    socket.destroySoon();
  }
}

/** Both ends: a client may use one port for connections to several addresses of this machine. */
function endsOf({ localAddress, localPort, remoteAddress, remotePort }: Socket): string {
  return [localAddress, localPort, remoteAddress, remotePort].join(" ");
}

function notRedirected(): ProxyError {
  return new ProxyError(
    "request.misdirected",
    "this listener serves redirected connections only (listener.transparent_inbound_addr): a client connects to the agent's own port",
  );
}

function noHttp(first: Sniffed, { port }: SocketEnd): ProxyError {
  const what = first.kind === "timeout" ? "sent no request in time" : "does not speak HTTP";
  return new ProxyError(
    first.kind === "timeout" ? "request.timeout" : "request.malformed",
    `a connection to port ${port} ${what}: list the port in listener.inbound_passthrough_ports if it is to be passed on unread`,
  );
}
