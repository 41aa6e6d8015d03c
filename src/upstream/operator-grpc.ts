/** Calls of gRPC to the services that the operator's file names, over sessions of HTTP/2 that are kept. */
import http2, { type ClientHttp2Session } from "node:http2";
import type { Socket } from "node:net";
import { messageOf, ProxyError } from "../errors.ts";
import { callOver, GrpcFault } from "../grpc/call.ts";
import type {
  ClientCertificate,
  OperatorRequest,
  OperatorResponse,
} from "../http/operator-fetch.ts";
import type { OperatorOrigin } from "./operator-origin.ts";

/** Opens a connection on which HTTP/2 is spoken. */
type OpenConnection = (
  origin: OperatorOrigin,
  certificate: ClientCertificate | undefined,
) => Promise<Socket>;

/** One call of a service. */
export interface OperatorCall {
  readonly origin: OperatorOrigin;
  readonly path: string;
  readonly request: OperatorRequest;
  readonly maxBytes: number;
  /** Ends the call. */
  readonly signal: AbortSignal;
}

/** A session and how many calls are on it. */
interface Held {
  readonly certificate: ClientCertificate | undefined;
  readonly opening: Promise<ClientHttp2Session>;
  calls: number;
  /** No further call begins on it. */
  isOver: boolean;
}

/** Sessions to one service, each with another certificate; beyond it the oldest takes no more calls. */
const maxSessions = 8;
/** What one session may hold of messages in both directions. */
const maxSessionMegabytes = 64;

/** One session for each service and certificate. */
export class GrpcSessions {
  readonly #open: OpenConnection;
  readonly #sessions = new Map<string, Held[]>();
  #isClosed = false;

  constructor(open: OpenConnection) {
    this.#open = open;
  }

  /** Resolves with the one message of the response. Rejects with {@link GrpcFault} or an error of the connection. */
  async call(call: OperatorCall): Promise<OperatorResponse> {
    const { origin, path, request, maxBytes, signal } = call;
    const held = this.#sessionFor(origin, request.certificate);
    held.calls += 1;
    const messages: Buffer[] = [];
    try {
      const session = await untilAborted(held.opening, signal);
      await callOver(session, {
        path,
        metadata: { ...request.headers },
        message: Buffer.from(request.body ?? ""),
        maxMessageBytes: maxBytes,
        signal,
        onMessage: (message) => {
          if (messages.length > 0) throw new GrpcFault("sent more than one message");
          messages.push(message);
        },
      });
    } catch (error) {
      // A connection that carries nothing any more does not say so: the next call gets another one.
      const isGivenUp = signal.aborted && (signal.reason as Error).name !== "TimeoutError";
      const isAnswer = error instanceof GrpcFault && !error.isBroken;
      if (!isGivenUp && !isAnswer) this.#retire(origin.name, held);
      throw error;
    } finally {
      held.calls -= 1;
      if (held.isOver && held.calls === 0) endSession(held);
    }
    const [body] = messages;
    if (body === undefined) throw new GrpcFault("sent no message");
    return { status: 200, headers: {}, body };
  }

  close(): void {
    this.#isClosed = true;
    for (const all of this.#sessions.values())
      for (const { opening } of all) opening.then((session) => session.destroy()).catch(ignore);
    this.#sessions.clear();
  }

  #sessionFor(origin: OperatorOrigin, certificate: ClientCertificate | undefined): Held {
    const all = this.#sessions.get(origin.name) ?? [];
    const known = all.find((one) => one.certificate === certificate);
    if (known !== undefined) return known;
    // A certificate that was replaced leaves a session on which nothing begins any more.
    for (const one of all)
      if (one.calls === 0 || all.length >= maxSessions) this.#retire(origin.name, one);
    const held: Held = {
      certificate,
      opening: this.#begin(origin, certificate, () => this.#retire(origin.name, held)),
      calls: 0,
      isOver: false,
    };
    held.opening.catch(() => this.#retire(origin.name, held));
    this.#sessions.set(origin.name, [...(this.#sessions.get(origin.name) ?? []), held]);
    return held;
  }

  async #begin(
    origin: OperatorOrigin,
    certificate: ClientCertificate | undefined,
    onOver: () => void,
  ): Promise<ClientHttp2Session> {
    const socket = await this.#open(origin, certificate);
    const session = http2.connect(authorityOf(origin), {
      createConnection: () => socket,
      settings: { enablePush: false },
      maxSessionMemory: maxSessionMegabytes,
    });
    session.on("error", onOver);
    session.on("goaway", onOver);
    session.on("close", onOver);
    // What the service ends without a word, such as a connection whose certificate it refuses, stays half open here.
    socket.once("end", () => session.destroy());
    if (this.#isClosed || socket.readableEnded) session.destroy();
    return session;
  }

  #retire(name: string, held: Held): void {
    held.isOver = true;
    const left = (this.#sessions.get(name) ?? []).filter((one) => one !== held);
    if (left.length === 0) this.#sessions.delete(name);
    else this.#sessions.set(name, left);
    if (held.calls === 0) endSession(held);
  }
}

/** The fault of a call, as one of ours. */
export function grpcFault(name: string, error: unknown): ProxyError {
  if (error instanceof GrpcFault) {
    const code = error.isBroken ? "upstream.reset" : "upstream.bad-response";
    return new ProxyError(code, `${name} ${error.message}`, { cause: error });
  }
  const isOther = (error as NodeJS.ErrnoException).code === "ERR_HTTP2_ERROR";
  return isOther
    ? new ProxyError("upstream.bad-response", `${name} did not answer in HTTP/2`, { cause: error })
    : new ProxyError("upstream.reset", `${name} failed: ${messageOf(error)}`, { cause: error });
}

/** What is not on it any more may take its time to be sent. */
function endSession({ opening }: Held): void {
  opening.then((session) => session.destroy()).catch(ignore);
}

function authorityOf(origin: OperatorOrigin): string {
  // A service behind a socket has no name of its own.
  return origin.kind === "network" ? origin.name : "http://localhost";
}

async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const given = Promise.withResolvers<never>();
  const onAbort = (): void => given.reject(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  try {
    return await Promise.race([promise, given.promise]);
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

function ignore(): void {
  // Whoever called is told.
}
