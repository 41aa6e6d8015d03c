/** The only dialler of the process: a Permit in, a connected socket to a vetted address out. */
import net from "node:net";
import { messageOf, ProxyError } from "../errors.ts";
import type { BodySink } from "../http/body-source.ts";
import { type AbortSource, cancelled } from "../net/abort-source.ts";
import type { AdaptiveReader } from "../net/adaptive-reader.ts";
import type { IpAddress } from "../net/address.ts";
import type { Destination } from "../net/destination.ts";
import type { AttachedCredential } from "../pipeline/context.ts";
import type { Permit } from "../pipeline/pipeline.ts";
import type { AddressGuard } from "./address-guard.ts";
import { connectUnixSocket } from "../net/unix-socket.ts";

/** How one dial is made. */
export interface ConnectOptions {
  readonly signal: AbortSource;
  /** Reads into its buffer instead of emitting `data`, where the connection allows it; see net/splice.ts. */
  readonly reader?: AdaptiveReader;
  /** HTTP/2 is going to be spoken: where a protocol is negotiated, that is it. */
  readonly http2?: boolean;
}

/** A parent proxy that takes plain requests whole, with the URL as their target (RFC 9112 section 3.2.2). */
export interface AbsoluteForm {
  /** The parent's URL without credentials. */
  readonly label: string;
  /** Fields that the parent wants on every request; they hold its credentials. */
  fields(): string[];
  connect(signal: AbortSource): Promise<net.Socket>;
  /** The fault that an error of the connection to the parent stands for. */
  fault(error: Error): Error;
  /** The fault of a response that is the parent's own, or undefined when it is the origin's; the list is flat. */
  refusal(status: number, headers: readonly string[]): ProxyError | undefined;
}

/** Opens connections for agent traffic. */
export interface Upstream {
  /** Rejects with ProxyError `upstream.*`. The socket is the caller's to destroy. */
  connect(permit: Permit, options: ConnectOptions): Promise<net.Socket>;
  /**
   * Rejects with `request.misdirected` when `captured`, which the client dialled, is no address of the destination.
   *
   * Resolves unseen where a parent proxy resolves the name.
   */
  confirm(permit: Permit, captured: IpAddress, signal: AbortSource): Promise<void>;
  /**
   * The parent that takes a permitted plain request whole; undefined where a connection to the destination is opened.
   *
   * Throws what connect() rejects with. Asked for each request: connections to a parent serve many destinations.
   */
  absoluteForm(permit: Permit): AbsoluteForm | undefined;
}

/** The same for services that the operator's file names. */
export interface OperatorUpstream {
  connectOperator(destination: Destination, signal: AbortSource): Promise<net.Socket>;
  /** A Unix socket, which is on this machine whatever the chain says. */
  connectOperatorSocket(path: string, signal: AbortSignal): Promise<net.Socket>;
  absoluteFormOperator(destination: Destination): AbsoluteForm | undefined;
}

/** Options of the dialler. */
export interface DirectUpstreamOptions {
  readonly guard: AddressGuard;
  readonly connectTimeoutMs: number;
}

/** RFC 8305 section 5: the delay before the next address is tried beside the one still connecting. */
const attemptDelayMs = 250;

/** Dials destinations themselves, over addresses that the guard vetted. */
export class DirectUpstream implements Upstream, OperatorUpstream {
  readonly #guard: AddressGuard;
  readonly #connectTimeoutMs: number;

  constructor(options: DirectUpstreamOptions) {
    this.#guard = options.guard;
    this.#connectTimeoutMs = options.connectTimeoutMs;
  }

  confirm(permit: Permit, captured: IpAddress, signal: AbortSource): Promise<void> {
    return this.#guard.confirm(permit.destination, captured, signal, permit.caller);
  }

  async connect(permit: Permit, options: ConnectOptions): Promise<net.Socket> {
    const { destination } = permit;
    const vetted =
      permit.direction === "inbound"
        ? await this.#guard.vetOperator(destination, options.signal)
        : await this.#guard.vet(destination, options.signal, permit.addressLimits, permit.caller);
    return dialFirst(destination, vetted, this.#connectTimeoutMs, options);
  }

  absoluteForm(): undefined {
    return undefined;
  }

  absoluteFormOperator(): undefined {
    return undefined;
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
    const socket = dial(address, destination.port, options.reader);
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

/** Dials vetted addresses in turn, each a little after the one before it, and keeps the first that connects. */
export function dialFirst(
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
      const socket = dial(address, destination.port, options.reader);
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

function late({ authority }: Destination, timeoutMs: number): ProxyError {
  const message = `${authority} did not accept a connection in ${timeoutMs} ms (limits.connect_timeout)`;
  return new ProxyError("upstream.timeout", message, { hop: "tcp" });
}

function ignore(): void {
  // The owner gets the same failure through its own listener or through `close`.
}

function dial(address: IpAddress, port: number, reader: AdaptiveReader | undefined): net.Socket {
  return net.connect({
    host: address.toString(),
    port,
    noDelay: true,
    allowHalfOpen: true,
    autoSelectFamily: false,
    ...(reader === undefined ? {} : { onread: reader.bind() }),
  });
}

function dialError(destination: Destination, cause: unknown): ProxyError {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  const why = code ?? messageOf(cause);
  return new ProxyError(
    code === "ETIMEDOUT" ? "upstream.timeout" : "upstream.refused",
    `${destination.authority} could not be reached: ${why}`,
    { cause, hop: "tcp" },
  );
}

/** One request for an origin; headers are a flat list of names and values. */
export interface OutgoingRequest {
  readonly method: string;
  readonly path: string;
  readonly headers: string[];
  readonly body: Buffer | StreamedBody | null;
  /** Protocol of an `Upgrade`, e.g. `websocket`. */
  readonly upgrade?: string | undefined;
  /** True for messages that HTTP/1.1 cannot carry whole, such as gRPC. */
  readonly needsHttp2: boolean;
  /** HTTP/2 to an origin without TLS (RFC 9113 section 3.3). */
  readonly priorKnowledge?: boolean;
  /** Hears the response's head before anybody else, and may have the request sent once more. */
  readonly credential?: AttachedCredential | undefined;
}

/** A request body that is sent as it comes. */
export interface StreamedBody {
  /** True while a sink that is opened now would be given every byte. */
  readonly isWhole: boolean;
  /** Gives the body to this sink from now on, perhaps during the call; one that was open before gets nothing more. */
  open(sink: BodySink): void;
  /** Goes on after the sink would take nothing more. */
  resume(): void;
  /** Gives nothing more to this sink, if it is the open one. */
  detach(sink: BodySink): void;
  /** Keeps what is given from now on, within a bound, so that it can be given again. */
  keep(): void;
  /** Drops what was kept: nothing is going to be sent again. */
  forget(): void;
}
