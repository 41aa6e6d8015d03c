/** Accepts redirected connections, within a bound, and reads where the kernel took them from. */
import net, { type AddressInfo, type Socket } from "node:net";
import { parseAddress } from "../net/address.ts";
import { cutOff } from "../net/cut.ts";
import type { OriginalDestinations } from "../net/kernel/original-destination.ts";
import type { SocketEnd } from "../net/kernel/socket-table.ts";
import { acceptance } from "../proxy/exchange/http-server.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { type BindAddress, unavailable } from "./listener.ts";

/** What it is made of. */
export interface AcceptorOptions {
  readonly originals: OriginalDestinations;
  readonly maxConnections: number;
  readonly metrics: Metrics;
}

/** The port of one surface. */
export class CapturedAcceptor {
  readonly #options: AcceptorOptions;
  readonly #server: net.Server;
  readonly #serve: (socket: Socket) => void;
  readonly #open = new Set<Socket>();
  readonly #inPlace = new WeakSet<Socket>();
  #draining = false;

  /** `serve` never throws. */
  constructor(options: AcceptorOptions, serve: (socket: Socket) => void) {
    this.#options = options;
    this.#serve = serve;
    this.#server = net.createServer(acceptance);
    this.#server.on("connection", (socket) => this.#accept(socket));
  }

  /** Serves a connection that was accepted in place of its destination, whose address it has. */
  adopt(socket: Socket): void {
    this.#inPlace.add(socket);
    this.#accept(socket);
  }

  /** Connections that are open now. */
  get connections(): number {
    return this.#open.size;
  }

  /** Where a connection was going; undefined where it was made to this listener itself. */
  originalOf(socket: Socket): SocketEnd | undefined {
    const local = parseAddress(socket.localAddress ?? "")
      ?.unmapped()
      .toString();
    if (this.#inPlace.has(socket) && local !== undefined)
      return { address: local, port: socket.localPort ?? 0 };
    const original = this.#options.originals.of(socket);
    if (original === undefined) return undefined;
    const isHere = original.port === socket.localPort && original.address === local;
    return isHere ? undefined : original;
  }

  /** Binds and resolves with what was bound; rejects with `listener.unavailable` when it is taken. */
  bind(address: BindAddress): Promise<BindAddress> {
    return new Promise((resolve, reject) => {
      const onError = (error: Error): void => reject(unavailable(address, error));
      this.#server.once("error", onError);
      this.#server.listen({ host: address.host, port: address.port, backlog: 1_024 }, () => {
        this.#server.removeListener("error", onError);
        // EMFILE while accepting is an `error` event: it must not take the process down.
        this.#server.on("error", () => this.#options.metrics.refused("connections"));
        const bound = this.#server.address() as AddressInfo;
        resolve({ host: bound.address, port: bound.port });
      });
    });
  }

  /** Stops accepting, waits for connections and for `served` until the deadline, then cuts what is left. */
  async close(deadlineMs: number, served: Promise<void>): Promise<void> {
    this.#draining = true;
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    const cut = setTimeout(() => {
      for (const socket of this.#open) socket.destroy();
    }, deadlineMs);
    await Promise.all([closed, served]);
    clearTimeout(cut);
  }

  #accept(socket: Socket): void {
    socket.on("error", ignore);
    if (this.#draining || this.#open.size >= this.#options.maxConnections) {
      this.#options.metrics.refused(this.#draining ? "draining" : "connections");
      cutOff(socket);
      return;
    }
    this.#open.add(socket);
    socket.once("close", () => this.#open.delete(socket));
    this.#serve(socket);
  }
}

function ignore(): void {
  // `close` follows and is what ends the flow.
}
