/** A pool of our client of HTTP/1.1 to an origin whose every byte the test writes. */
import net, { type AddressInfo, type Socket } from "node:net";
import { onTestFinished } from "vitest";
import type { BodySink } from "../../src/http/body-source.ts";
import type { RequestControl, ResponseHandler } from "../../src/http/response-handler.ts";
import { StallWatch } from "../../src/net/stall-watch.ts";
import type { ClientLimits } from "../../src/wire/client-connection.ts";
import { ClientPool } from "../../src/wire/client-pool.ts";
import type { ClientBody, ClientRequest } from "../../src/wire/client-request.ts";

/** What one request came to, and how its handler behaves. */
export class Recorded implements ResponseHandler {
  /** In order: `start`, `first`, `1xx`, `head`, `data`, `end`, `error`. */
  readonly events: string[] = [];
  readonly interim: number[] = [];
  control: RequestControl | undefined;
  status = 0;
  reason: string | undefined;
  headers: readonly string[] = [];
  trailers: readonly string[] = [];
  body = "";
  error: unknown;
  upgraded: { readonly socket: Socket; readonly head: string } | undefined;
  /** Resolves when the request is over, or its connection another protocol's. */
  readonly over: Promise<this>;
  onHead: (control: RequestControl) => void = () => undefined;
  onData: (control: RequestControl) => void = () => undefined;
  onStart: (control: RequestControl) => void = () => undefined;
  onOver: () => void = () => undefined;
  #resolve: (self: this) => void = () => undefined;

  constructor() {
    this.over = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  onRequestStart(control: RequestControl): void {
    this.control = control;
    this.events.push("start");
    this.onStart(control);
  }

  onResponseStarted(): void {
    this.events.push("first");
  }

  onInformational(_control: RequestControl, status: number): void {
    this.events.push("1xx");
    this.interim.push(status);
  }

  onResponseStart(
    control: RequestControl,
    status: number,
    headers: string[],
    reason: string | undefined,
  ): void {
    this.events.push("head");
    this.status = status;
    this.headers = headers;
    this.reason = reason;
    this.onHead(control);
  }

  onUpgrade(status: number, headers: string[], socket: Socket, head: Buffer): void {
    this.events.push("upgrade");
    this.status = status;
    this.headers = headers;
    this.upgraded = { socket, head: head.toString("latin1") };
    this.#resolve(this);
  }

  onResponseData(control: RequestControl, chunk: Buffer): void {
    if (this.events.at(-1) !== "data") this.events.push("data");
    this.body += chunk.toString("latin1");
    this.onData(control);
  }

  onResponseEnd(_control: RequestControl, trailers: readonly string[]): void {
    this.events.push("end");
    this.trailers = trailers;
    this.onOver();
    this.#resolve(this);
  }

  onResponseError(_control: RequestControl, error: Error): void {
    this.events.push("error");
    this.error = error;
    this.onOver();
    this.#resolve(this);
  }

  /** What another implementation of the protocol would have to agree on. */
  get outcome(): object {
    if (this.error !== undefined) return { failed: true };
    const { status, body, headers, trailers } = this;
    return { status, body, headers, trailers };
  }
}

/** A body that the test pushes. */
export class PushedBody implements ClientBody {
  sink: BodySink | undefined;
  isPaused = false;
  onOpen: (sink: BodySink) => void = () => undefined;
  onResume: () => void = () => undefined;

  open(sink: BodySink): void {
    this.sink = sink;
    this.onOpen(sink);
  }

  resume(): void {
    this.isPaused = false;
    this.onResume();
  }

  detach(sink: BodySink): void {
    if (this.sink === sink) this.sink = undefined;
  }

  give(text: string): void {
    this.isPaused = this.sink?.data(Buffer.from(text, "latin1")) !== true;
  }
}

/** One connection as the origin has it. */
export class OriginConnection {
  readonly socket: Socket;
  seen = "";
  /** The client has ended or reset it. */
  isGone = false;

  constructor(socket: Socket, onData: (connection: OriginConnection) => void) {
    this.socket = socket;
    socket.on("error", () => undefined);
    socket.on("close", () => (this.isGone = true));
    socket.on("end", () => (this.isGone = true));
    socket.on("data", (chunk: Buffer) => {
      this.seen += chunk.toString("latin1");
      onData(this);
    });
  }

  /** Resolves once the bytes have left. */
  send(bytes: string | Buffer): Promise<void> {
    return new Promise((resolve) => {
      this.socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes, () =>
        resolve(),
      );
    });
  }
}

/** A pool, and the origin that it speaks to. */
export interface WireBench {
  readonly pool: ClientPool;
  readonly connections: readonly OriginConnection[];
  /** The other ends of the same connections. */
  readonly sockets: readonly Socket[];
  /** Sends a request; `handler` may be prepared. */
  readonly ask: (request?: Partial<ClientRequest>, handler?: Recorded) => Recorded;
}

/** Starts an origin that does as the test says with what it gets; everything is closed after the test. */
export async function wireBench(
  onData: (connection: OriginConnection) => void,
  limits: Partial<ClientLimits> = {},
): Promise<WireBench> {
  const connections: OriginConnection[] = [];
  const sockets: Socket[] = [];
  const server = net.createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    connections.push(new OriginConnection(socket, onData));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const watch = new StallWatch(10);
  const pool = new ClientPool({
    watch,
    limits: {
      responseTimeoutMs: 0,
      streamIdleTimeoutMs: 0,
      maxHeaderBytes: 16_384,
      maxHeaders: 100,
      idleTimeoutMs: 60_000,
      maxIdleTimeoutMs: 60_000,
      ...limits,
    },
    open: () =>
      new Promise((resolve, reject) => {
        const socket = net.connect({ host: "127.0.0.1", port, allowHalfOpen: true, noDelay: true });
        sockets.push(socket);
        socket.on("error", reject).on("connect", () => resolve(socket));
      }),
  });
  onTestFinished(() => {
    pool.destroy();
    watch.close();
    for (const { socket } of connections) socket.destroy();
    server.close();
  });
  return {
    pool,
    connections,
    sockets,
    ask: (request = {}, handler = new Recorded()) => {
      const headers = ["Host", "origin.test"];
      pool.dispatch({ method: "GET", path: "/", headers, body: null, ...request }, handler);
      return handler;
    },
  };
}
