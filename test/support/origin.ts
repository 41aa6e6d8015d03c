/** Origins on loopback that keep the exact bytes they were sent and answer the exact bytes they are told. */
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { ByteReader } from "./byte-reader.ts";
import { readBody, readHead, type Field, type MessageHead } from "./http-message.ts";

/** A request as it arrived. */
export interface RecordedRequest {
  readonly method: string;
  readonly target: string;
  readonly head: MessageHead;
  readonly body: Buffer;
  readonly text: string;
  readonly trailers: readonly Field[];
  readonly connection: OriginConnection;
  header(name: string): string | undefined;
}

/** One accepted connection. */
export class OriginConnection {
  readonly socket: Socket;
  readonly reader: ByteReader;
  readonly closed: Promise<void>;
  isClosed = false;

  constructor(socket: Socket) {
    this.socket = socket;
    this.reader = new ByteReader(socket);
    this.closed = new Promise((resolve) => {
      socket.once("close", () => {
        this.isClosed = true;
        resolve();
      });
    });
  }

  /** Resolves when the bytes are with the kernel: false when the connection is gone. */
  send(bytes: string | Buffer): Promise<boolean> {
    if (this.socket.destroyed) return Promise.resolve(false);
    return new Promise((resolve) => {
      this.socket.write(typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes, (error) =>
        resolve(error === undefined || error === null),
      );
    });
  }

  end(bytes?: string | Buffer): void {
    if (bytes !== undefined) void this.send(bytes);
    this.socket.end();
  }

  reset(): void {
    this.socket.resetAndDestroy();
  }
}

/** A TCP server whose connections are handed to a function. */
export class TcpOrigin {
  readonly connections: OriginConnection[] = [];
  /** Called for each connection. */
  serve: (connection: OriginConnection) => Promise<void> | void;
  readonly #server: Server;

  protected constructor(
    server: Server,
    serve: (connection: OriginConnection) => Promise<void> | void,
  ) {
    this.#server = server;
    this.serve = serve;
    server.on("connection", (socket) => {
      socket.setNoDelay(true);
      const connection = new OriginConnection(socket);
      this.connections.push(connection);
      void (async () => this.serve(connection))().catch(() => socket.destroy());
    });
  }

  static async start(
    serve: (connection: OriginConnection) => Promise<void> | void,
  ): Promise<TcpOrigin> {
    return new TcpOrigin(await listen(), serve);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get authority(): string {
    return `127.0.0.1:${this.port}`;
  }

  /** Connections that are open now. */
  get openCount(): number {
    return this.connections.filter((connection) => !connection.isClosed).length;
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const connection of this.connections) connection.socket.destroy();
    await closed;
  }
}

async function listen(): Promise<Server> {
  const server = createServer({ allowHalfOpen: true });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return server;
}

/** What an {@link HttpOrigin} does with a request: bytes to send, or nothing when it has acted by itself. */
export type Answer = (request: RecordedRequest) => string | Buffer | void | Promise<string | void>;

/** A response with a Content-Length. */
export function reply(
  status: number,
  body = "",
  headers: Readonly<Record<string, string>> = {},
): string {
  const fields = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  return `HTTP/1.1 ${status} Reason\r\nContent-Length: ${Buffer.byteLength(body)}\r\n${fields.join("")}\r\n${body}`;
}

/** An HTTP/1.1 server that records each request whole and answers by `answer`, or by path where `on` said so. */
export class HttpOrigin extends TcpOrigin {
  readonly requests: RecordedRequest[] = [];
  answer: Answer = () => reply(200, "hello from the origin", { "Content-Type": "text/plain" });
  /** Heads that came, also of requests whose body never did. */
  readonly heads: MessageHead[] = [];
  /** Set for requests that are answered before (or without) reading their body. */
  answerHead: ((head: MessageHead, connection: OriginConnection) => boolean) | undefined;
  readonly #byPath = new Map<string, Answer>();

  static async launch(answer?: Answer): Promise<HttpOrigin> {
    const origin: HttpOrigin = new HttpOrigin(await listen(), async (connection) =>
      origin.#converse(connection),
    );
    if (answer !== undefined) origin.answer = answer;
    return origin;
  }

  /** Answers a path (without query) in its own way. */
  on(path: string, answer: Answer): void {
    this.#byPath.set(path, answer);
  }

  get url(): string {
    return `http://${this.authority}`;
  }

  /** Requests for the path, query ignored. */
  requestsFor(path: string): RecordedRequest[] {
    return this.requests.filter((request) => request.target.split("?")[0] === path);
  }

  /** The only request for the path. */
  requestFor(path: string): RecordedRequest {
    const [first, ...more] = this.requestsFor(path);
    if (first === undefined) throw new Error(`the origin saw no request for ${path}`);
    if (more.length > 0) throw new Error(`the origin saw ${more.length + 1} requests for ${path}`);
    return first;
  }

  async #converse(connection: OriginConnection): Promise<void> {
    for (;;) {
      let head: MessageHead | undefined;
      try {
        await connection.reader.peek();
        head = await readHead(connection.reader);
      } catch {
        connection.socket.destroy();
        return;
      }
      if (head === undefined) {
        connection.socket.end();
        return;
      }
      this.heads.push(head);
      if (this.answerHead?.(head, connection) === true) return;
      const body = await readBody(connection.reader, head, false);
      const [method = "", target = ""] = head.startLine.split(" ");
      const seen = head;
      const request: RecordedRequest = {
        method,
        target,
        head,
        body: body.bytes,
        text: body.bytes.toString("utf8"),
        trailers: body.trailers,
        connection,
        header: (name) => seen.header(name),
      };
      this.requests.push(request);
      const answer = await (this.#byPath.get(target.split("?")[0] ?? "") ?? this.answer)(request);
      if (answer === undefined) continue;
      await connection.send(answer);
      if (
        /^HTTP\/1\.1 [^]*?\r\nconnection: close\r\n/i.test(
          String(answer).split("\r\n\r\n")[0] + "\r\n",
        )
      ) {
        connection.socket.end();
        return;
      }
    }
  }
}
