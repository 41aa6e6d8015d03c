/** A SPIFFE Workload API on a Unix socket, written from its specification, that also does what an agent should not. */
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import http2, { type ServerHttp2Session, type ServerHttp2Stream } from "node:http2";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestSvid } from "./spiffe-authority.ts";

/** A field with a length. */
export function field(number: number, value: string | Uint8Array): Buffer {
  const bytes = Buffer.from(value as string);
  return Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes]);
}

function varint(value: number): Buffer {
  return value < 0x80
    ? Buffer.of(value)
    : Buffer.concat([Buffer.of((value % 0x80) + 0x80), varint(Math.floor(value / 0x80))]);
}

/** What an `X509SVIDResponse` says. */
export interface X509Update {
  readonly svid: Pick<TestSvid, "spiffeId" | "certDer" | "keyDer">;
  readonly bundle: Buffer;
  readonly federated?: Readonly<Record<string, Buffer>>;
}

function x509Response({ svid, bundle, federated = {} }: X509Update): Buffer {
  const one = Buffer.concat([
    field(1, svid.spiffeId),
    field(2, svid.certDer),
    field(3, svid.keyDer),
    field(4, bundle),
  ]);
  const others = Object.entries(federated).map(([name, bytes]) =>
    field(3, Buffer.concat([field(1, name), field(2, bytes)])),
  );
  return Buffer.concat([field(1, one), ...others]);
}

/** An unsigned JWT: a client of the agent does not verify it. */
export function jwtSvid(claims: Readonly<Record<string, unknown>>): string {
  const part = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "ES256", kid: "k" })}.${part(claims)}.c2lnbmF0dXJl`;
}

/** The answer to a call: a message, a status that is none, the raw bytes of a frame, or silence. */
export type Answer =
  | { readonly message: Buffer }
  | { readonly status: number; readonly words?: string }
  | { readonly raw: Buffer }
  | "silence";

/** An answer with one JWT-SVID. */
export function jwtAnswer(spiffeId: string, token: string): Answer {
  return { message: field(1, Buffer.concat([field(1, spiffeId), field(2, token)])) };
}

/** How the agent as a whole behaves. */
type Manner = "well" | "garbage" | "silence";

/** One agent. */
export class WorkloadApi {
  readonly path: string;
  /** The methods that were called, in order. */
  readonly calls: string[] = [];
  /** The audiences that JWT-SVIDs were asked for. */
  readonly audiences: string[] = [];
  /** Connections that were accepted. */
  connections = 0;
  /** Answers a request for a JWT-SVID; by default with a token of an hour for the SPIFFE ID of the last update. */
  onJwt: (audience: string) => Answer | Promise<Answer>;
  readonly #directory: string;
  readonly #sockets = new Set<net.Socket>();
  readonly #streams = new Set<ServerHttp2Stream>();
  readonly #keyStreams = new Set<ServerHttp2Stream>();
  #server: net.Server | undefined;
  #x509: Answer | undefined;
  #keys: Answer | undefined;
  #spiffeId = "spiffe://example.org/workload";
  #manner: Manner = "well";

  private constructor() {
    this.#directory = mkdtempSync(join(tmpdir(), "workload-api-"));
    this.path = join(this.#directory, "agent.sock");
    this.onJwt = (audience) => {
      const exp = Math.floor(Date.now() / 1_000) + 3_600;
      const sub = this.#spiffeId;
      return jwtAnswer(sub, jwtSvid({ sub, aud: [audience], exp, n: this.audiences.length }));
    };
  }

  /** An agent that listens, or one whose socket is not there yet. */
  static async start(isThere = true): Promise<WorkloadApi> {
    const api = new WorkloadApi();
    if (isThere) await api.listen();
    return api;
  }

  /** The value of `spiffe.socket`. */
  get address(): string {
    return `unix://${this.path}`;
  }

  /** Streams of X.509-SVIDs that are open. */
  get streams(): number {
    return this.#streams.size;
  }

  /** Begins to listen, with another behaviour if it is said. */
  async listen(manner: Manner = "well"): Promise<void> {
    this.#manner = manner;
    const server = net.createServer((socket) => this.#accept(socket));
    this.#server = server;
    server.listen(this.path);
    await once(server, "listening");
  }

  /** Dies: closes every connection, and the socket with it. */
  async stop(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    for (const socket of this.#sockets) socket.destroy();
    this.#streams.clear();
    this.#keyStreams.clear();
    if (server !== undefined) await new Promise((resolve) => server.close(resolve));
  }

  async close(): Promise<void> {
    await this.stop();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  /** Sends an update to every stream that is open, and to each that opens from now on. */
  update(update: X509Update): void {
    this.#spiffeId = update.svid.spiffeId;
    this.answerX509({ message: x509Response(update) });
  }

  /** The same with an answer of any kind. */
  answerX509(answer: Answer): void {
    this.#x509 = answer;
    for (const stream of this.#streams) this.#send(stream, answer, true);
  }

  /** Sends key sets, by trust domain, to every stream of them. */
  updateKeys(keySets: Readonly<Record<string, string>>): void {
    const entries = Object.entries(keySets).map(([domain, keys]) =>
      field(1, Buffer.concat([field(1, `spiffe://${domain}`), field(2, keys)])),
    );
    this.answerKeys({ message: Buffer.concat(entries) });
  }

  /** The same with an answer of any kind. */
  answerKeys(answer: Answer): void {
    this.#keys = answer;
    for (const stream of this.#keyStreams) this.#send(stream, answer, true);
  }

  #accept(socket: net.Socket): void {
    this.connections += 1;
    this.#sockets.add(socket);
    socket.on("error", () => undefined);
    socket.once("close", () => this.#sockets.delete(socket));
    if (this.#manner === "garbage") socket.end("HTTP/1.1 400 Bad Request\r\n\r\ngarbage");
    if (this.#manner !== "well") {
      socket.resume();
      return;
    }
    const session: ServerHttp2Session = http2.performServerHandshake(socket);
    session.on("error", () => undefined);
    session.on("stream", (stream, headers) => {
      stream.on("error", () => undefined);
      const path = String(headers[":path"]);
      this.calls.push(path.slice(path.lastIndexOf("/") + 1));
      if (headers["workload.spiffe.io"] !== "true") {
        this.#send(stream, { status: 3, words: "security header missing from request" }, false);
      } else if (path === "/SpiffeWorkloadAPI/FetchX509SVID") this.#serveX509(stream);
      else if (path === "/SpiffeWorkloadAPI/FetchJWTBundles") this.#serveKeys(stream);
      else if (path === "/SpiffeWorkloadAPI/FetchJWTSVID") this.#serveJwt(stream);
      else this.#send(stream, { status: 12 }, false);
    });
  }

  #serveX509(stream: ServerHttp2Stream): void {
    this.#streams.add(stream);
    stream.once("close", () => this.#streams.delete(stream));
    stream.resume();
    if (this.#x509 !== undefined) this.#send(stream, this.#x509, true);
  }

  #serveKeys(stream: ServerHttp2Stream): void {
    this.#keyStreams.add(stream);
    stream.once("close", () => this.#keyStreams.delete(stream));
    stream.resume();
    if (this.#keys !== undefined) this.#send(stream, this.#keys, true);
  }

  #serveJwt(stream: ServerHttp2Stream): void {
    const chunks: Buffer[] = [];
    stream.on("data", (chunk: Buffer) => chunks.push(chunk));
    stream.once("end", () => {
      // A frame's head of five bytes, then the field of one audience, whose length is one or two bytes.
      const request = Buffer.concat(chunks).subarray(5);
      const audience = request.subarray((request[1] ?? 0) < 0x80 ? 2 : 3).toString();
      this.audiences.push(audience);
      void Promise.resolve(this.onJwt(audience)).then((answer) =>
        this.#send(stream, answer, false),
      );
    });
  }

  #send(stream: ServerHttp2Stream, answer: Answer, stays: boolean): void {
    if (answer === "silence" || stream.destroyed) return;
    if (!stream.headersSent) {
      const fields = { ":status": 200, "content-type": "application/grpc" };
      if ("status" in answer) {
        const words = encodeURIComponent(answer.words ?? "");
        stream.respond(
          { ...fields, "grpc-status": String(answer.status), "grpc-message": words },
          { endStream: true },
        );
        return;
      }
      stream.respond(fields, { waitForTrailers: true });
      stream.once("wantTrailers", () => stream.sendTrailers({ "grpc-status": "0" }));
    }
    if ("raw" in answer) stream.write(answer.raw);
    else if ("message" in answer) {
      const head = Buffer.alloc(5);
      head.writeUInt32BE(answer.message.length, 1);
      stream.write(Buffer.concat([head, answer.message]));
    }
    if (!stays || "status" in answer) stream.end();
  }
}
