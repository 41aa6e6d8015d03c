/** The only dialler of the process: a Permit in, a connected socket to a vetted address out. */
import net from "node:net";
import { messageOf, ProxyError } from "../errors.ts";
import type { AbortSource } from "../net/abort-source.ts";
import type { IpAddress } from "../net/address.ts";
import type { Destination } from "../net/destination.ts";
import type { Permit } from "../pipeline/pipeline.ts";
import type { AddressGuard } from "./address-guard.ts";
import type { OwnDials } from "./own-dials.ts";
import { connectUnixSocket } from "./unix-socket.ts";

/** How one dial is made. */
export interface ConnectOptions {
  readonly signal: AbortSource;
  /** Reads into the caller's buffer instead of emitting `data`; see net/splice.ts. */
  readonly onread?: net.OnReadOpts;
}

/** Opens connections for agent traffic. */
export interface Upstream {
  /** Rejects with ProxyError `upstream.*`. The socket is the caller's to destroy. */
  connect(permit: Permit, options: ConnectOptions): Promise<net.Socket>;
  /** Rejects with `request.misdirected` when `captured`, which the client dialled, is no address of the destination. */
  confirm(permit: Permit, captured: IpAddress, signal: AbortSource): Promise<void>;
}

/** What the dialler is made with. */
export interface DirectUpstreamOptions {
  readonly guard: AddressGuard;
  readonly connectTimeoutMs: number;
  /** Told of every connection, where redirected ones could come back to this process. */
  readonly ownDials?: OwnDials;
}

/** RFC 8305 section 5: the delay before the next address is tried beside the one still connecting. */
const attemptDelayMs = 250;

/** Dials destinations themselves, over addresses that the guard vetted. */
export class DirectUpstream implements Upstream {
  readonly #guard: AddressGuard;
  readonly #connectTimeoutMs: number;
  readonly #ownDials: OwnDials | undefined;

  constructor(options: DirectUpstreamOptions) {
    this.#guard = options.guard;
    this.#connectTimeoutMs = options.connectTimeoutMs;
    this.#ownDials = options.ownDials;
  }

  confirm(permit: Permit, captured: IpAddress, signal: AbortSource): Promise<void> {
    return this.#guard.confirm(permit.destination, captured, signal);
  }

  async connect(permit: Permit, options: ConnectOptions): Promise<net.Socket> {
    const { destination } = permit;
    const vetted =
      permit.direction === "inbound"
        ? await this.#guard.vetOperator(destination, options.signal)
        : await this.#guard.vet(destination, options.signal, permit.addressLimits);
    const socket = await dialFirst(destination, vetted, this.#connectTimeoutMs, options);
    this.#ownDials?.add(socket);
    return socket;
  }

  /** A connection to a service that the operator's file names (token endpoint, key set). */
  async connectOperator(destination: Destination, signal: AbortSource): Promise<net.Socket> {
    const vetted = await this.#guard.vetOperator(destination, signal);
    return dialFirst(destination, vetted, this.#connectTimeoutMs, { signal });
  }

  /** A connection to a service on this machine that the operator's file names by its socket. */
  connectOperatorSocket(path: string, signal: AbortSignal): Promise<net.Socket> {
    return connectUnixSocket(path, this.#connectTimeoutMs, signal);
  }
}

/** The usual case without the bookkeeping of several attempts. */
function dialOne(
  destination: Destination,
  address: IpAddress,
  timeoutMs: number,
  options: ConnectOptions,
): Promise<net.Socket> {
  return new Promise((resolve, reject) => {
    const socket = dial(address, destination.port, options.onread);
    const finish = (error: ProxyError | undefined): void => {
      clearTimeout(deadline);
      options.signal.removeEventListener("abort", onAbort);
      // From here to the owner's own listener a reset must not become an uncaught exception.
      socket.off("error", onError).off("connect", onConnect).on("error", ignore);
      if (error === undefined) {
        resolve(socket);
      } else {
        socket.destroy();
        reject(error);
      }
    };
    const onConnect = (): void => finish(undefined);
    const onError = (error: Error): void => finish(dialError(destination, error));
    const onAbort = (): void => finish(cancelled());
    const deadline = setTimeout(() => finish(late(destination, timeoutMs)), timeoutMs);
    socket.on("error", onError).on("connect", onConnect);
    options.signal.addEventListener("abort", onAbort, { once: true });
    if (options.signal.aborted) onAbort();
  });
}

/** Tries the addresses in turn, each a little after the one before it, and keeps the first that connects. */
function dialFirst(
  destination: Destination,
  addresses: readonly IpAddress[],
  timeoutMs: number,
  options: ConnectOptions,
): Promise<net.Socket> {
  const [only, ...others] = addresses;
  if (only !== undefined && others.length === 0) {
    return dialOne(destination, only, timeoutMs, options);
  }
  return new Promise((resolve, reject) => {
    const open = new Set<net.Socket>();
    let next = 0;
    let lastError: unknown;
    let stagger: NodeJS.Timeout | undefined;
    const finish = (winner: net.Socket | undefined, error?: ProxyError): void => {
      clearTimeout(stagger);
      clearTimeout(deadline);
      options.signal.removeEventListener("abort", onAbort);
      for (const socket of open) if (socket !== winner) socket.destroy();
      open.clear();
      if (winner !== undefined) resolve(winner);
      else reject(error ?? new ProxyError("upstream.refused", "no address to dial"));
    };
    const onAbort = (): void => finish(undefined, cancelled());
    const deadline = setTimeout(() => finish(undefined, late(destination, timeoutMs)), timeoutMs);
    const attempt = (): void => {
      clearTimeout(stagger);
      const address = addresses[next];
      if (address === undefined) {
        if (open.size === 0) finish(undefined, dialError(destination, lastError));
        return;
      }
      next += 1;
      const socket = dial(address, destination.port, options.onread);
      open.add(socket);
      const onError = (error: Error): void => {
        lastError = error;
        open.delete(socket);
        socket.destroy();
        attempt();
      };
      socket.once("error", onError);
      socket.once("connect", () => {
        socket.removeListener("error", onError);
        // Between here and the owner's own listener a reset must not become an uncaught exception.
        socket.on("error", ignore);
        finish(socket);
      });
      if (next < addresses.length) stagger = setTimeout(attempt, attemptDelayMs);
    };
    if (options.signal.aborted) {
      onAbort();
      return;
    }
    options.signal.addEventListener("abort", onAbort, { once: true });
    attempt();
  });
}

function cancelled(): ProxyError {
  return new ProxyError("pipeline.cancelled", "the client went away");
}

function late({ authority }: Destination, timeoutMs: number): ProxyError {
  const message = `${authority} did not accept a connection in ${timeoutMs} ms`;
  return new ProxyError("upstream.timeout", message);
}

function ignore(): void {
  // The owner hears of the same failure through its own listener or through `close`.
}

function dial(address: IpAddress, port: number, onread: net.OnReadOpts | undefined): net.Socket {
  return net.connect({
    host: address.toString(),
    port,
    noDelay: true,
    allowHalfOpen: true,
    autoSelectFamily: false,
    ...(onread === undefined ? {} : { onread }),
  });
}

function dialError(destination: Destination, cause: unknown): ProxyError {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  const why = code ?? messageOf(cause);
  return new ProxyError(
    code === "ETIMEDOUT" ? "upstream.timeout" : "upstream.refused",
    `${destination.authority} could not be reached: ${why}`,
    { cause },
  );
}
