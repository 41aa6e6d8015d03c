/** Accepts redirected connections, within a bound, and reads where the kernel took them from. */
import net, { type Socket } from "node:net";
import { parseAddress } from "../net/address.ts";
import { cutOff } from "../net/cut.ts";
import type { OriginalDestinations } from "../net/kernel/original-destination.ts";
import type { SocketEnd } from "../net/kernel/socket-table.ts";
import { Slots } from "../net/slots.ts";
import { acceptance, type HttpLimits } from "../proxy/exchange/http-server.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { type BindAddress, listen } from "./bind.ts";

/** What it is made of. */
export interface AcceptorOptions extends Pick<HttpLimits, "maxConnections" | "shared"> {
  readonly originals: OriginalDestinations;
  readonly metrics: Metrics;
}

/** The port of one surface. */
export class CapturedAcceptor {
  readonly #options: AcceptorOptions;
  readonly #server: net.Server;
  readonly #serve: (socket: Socket) => void;
  readonly #open = new Slots<Socket>();
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
  async bind(address: BindAddress): Promise<BindAddress> {
    const bound = await listen(this.#server, address);
    // EMFILE while accepting is an `error` event: it must not take the process down.
    this.#server.on("error", () => this.#options.metrics.refused("connections"));
    return bound;
  }

  #hasRoom(): boolean {
    const { maxConnections, shared } = this.#options;
    return shared?.take(maxConnections) ?? this.#open.size < maxConnections;
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
    if (this.#draining || !this.#hasRoom()) {
      this.#options.metrics.refused(this.#draining ? "draining" : "connections");
      cutOff(socket);
      return;
    }
    const slot = this.#open.add(socket);
    socket.once("close", () => {
      this.#open.delete(slot);
      this.#options.shared?.leave();
    });
    this.#serve(socket);
  }
}

function ignore(): void {
  // `close` follows and is what ends the flow.
}
