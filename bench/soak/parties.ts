/** Everybody whom the proxy of a soak talks to, in the driver's process, each of whom can die, hang, be slow or reset. */
import { createHash, generateKeyPairSync, type KeyObject } from "node:crypto";
import http from "node:http";
import http2 from "node:http2";
import net, { type AddressInfo, type Socket } from "node:net";
import { SignJWT } from "jose";
import { TestAuthority } from "../../test/support/certs.ts";

/** How a party behaves. */
export type Mood = "well" | "hung" | "slow" | "resetting";

const slowMs = 300;

/** Bytes that no two requests share by chance, and that both ends know. */
const pool = Buffer.alloc(131_072);
for (let at = 0, seed = 1; at < pool.length; at += 1) {
  seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
  pool[at] = seed >> 16;
}

export function bytesOf(seed: number): Buffer {
  const at = (seed * 7_919) % 65_536;
  return pool.subarray(at, at + 1 + ((seed * 613) % 32_768));
}

export function digestOf(bytes: Buffer | string): string {
  return createHash("sha256").update(bytes).digest("base64");
}

/** The events of `/sse/SEED`. */
export function eventsOf(seed: number): string {
  return Array.from({ length: 5 }, (_, at) => `id: ${at}\ndata: event ${seed} ${at}\n\n`).join("");
}

/** A server that can be killed with its connections and started again on the same port. */
export class Party {
  readonly sockets = new Set<Socket>();
  mood: Mood = "well";
  port = 0;
  /** Requests that it holds. */
  held: http.ServerResponse[] = [];
  readonly #handler: http.RequestListener;
  #server: http.Server | undefined;

  constructor(handler: http.RequestListener) {
    this.#handler = handler;
  }

  start(): Promise<void> {
    const server = http.createServer({ keepAliveTimeout: 2_000 }, (request, response) =>
      this.#serve(request, response),
    );
    server.on("connection", (socket) => this.keep(socket));
    server.on("upgrade", echoFrames);
    // A parent is its own destination: what comes through its tunnels is served here.
    server.on("connect", (_request, socket: Socket) => {
      if (this.mood === "resetting") socket.resetAndDestroy();
      else if (this.mood !== "hung") {
        socket.write("HTTP/1.1 200 OK\r\n\r\n");
        server.emit("connection", socket);
      }
    });
    this.#server = server;
    return new Promise((resolve) => {
      server.listen(this.port, "127.0.0.1", 4_096, () => {
        this.port = (server.address() as AddressInfo).port;
        resolve();
      });
    });
  }

  keep(socket: Socket): void {
    if (this.sockets.has(socket)) return;
    this.sockets.add(socket);
    socket.on("error", () => undefined);
    socket.once("close", () => this.sockets.delete(socket));
  }

  #serve(request: http.IncomingMessage, response: http.ServerResponse): void {
    if (this.mood === "resetting") request.socket.resetAndDestroy();
    else if (this.mood === "hung") this.held.push(response);
    else if (this.mood === "slow") setTimeout(() => this.#handler(request, response), slowMs);
    else this.#handler(request, response);
  }

  kill(): Promise<void> {
    for (const socket of this.sockets) socket.resetAndDestroy();
    this.held = [];
    return new Promise((resolve) => {
      if (this.#server === undefined) resolve();
      else this.#server.close(() => resolve());
    });
  }
}

/** Answers one WebSocket message after another with its own payload. */
function echoFrames(request: http.IncomingMessage, socket: net.Socket): void {
  const key = `${request.headers["sec-websocket-key"] ?? ""}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`;
  const accept = createHash("sha1").update(key).digest("base64");
  socket.write(
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
  );
  let seen = Buffer.alloc(0);
  socket.on("data", (chunk: Buffer) => {
    seen = Buffer.concat([seen, chunk]);
    while (seen.length >= 6) {
      const length = (seen[1] ?? 0) & 0x7f;
      if (seen.length < 6 + length) return;
      const mask = seen.subarray(2, 6);
      const payload = Buffer.from(seen.subarray(6, 6 + length));
      for (let at = 0; at < length; at += 1) payload[at] = (payload[at] ?? 0) ^ (mask[at % 4] ?? 0);
      socket.write(Buffer.concat([Buffer.of(seen[0] ?? 0, length), payload]));
      seen = seen.subarray(6 + length);
    }
  });
  socket.on("end", () => socket.end());
}

/** `/bytes/SEED`, `/sse/SEED`, `/mcp`; any POST elsewhere is echoed. */
export function serveContent(
  request: http.IncomingMessage | http2.Http2ServerRequest,
  response: http.ServerResponse | http2.Http2ServerResponse,
): void {
  const answer = response as http.ServerResponse;
  const [, kind, seed = "0"] = new URL(request.url ?? "/", "http://origin.test").pathname.split(
    "/",
  );
  if (request.method === "POST") {
    const parts: Buffer[] = [];
    request.on("data", (part: Buffer) => parts.push(part));
    request.on("end", () => {
      const body = Buffer.concat(parts);
      if (kind !== "mcp") {
        answer.end(body);
        return;
      }
      const { id } = JSON.parse(body.toString()) as { readonly id: number };
      answer.setHeader("Content-Type", "application/json");
      answer.end(toolAnswer(id));
    });
  } else if (kind === "sse") {
    answer.setHeader("Content-Type", "text/event-stream");
    for (const event of eventsOf(Number(seed)).match(/[^]*?\n\n/g) ?? []) answer.write(event);
    answer.end();
  } else {
    request.resume();
    answer.end(bytesOf(Number(seed)));
  }
}

export function toolAnswer(id: number): string {
  return `{"jsonrpc":"2.0","id":${id},"result":{"content":[{"type":"text","text":"${id * 3}"}]}}`;
}

/** A pair of the issuer's, under its own id. */
function newKey(kid: string): {
  readonly kid: string;
  readonly jwk: object;
  readonly sign: KeyObject;
} {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const jwk = { ...publicKey.export({ format: "jwk" }), kid, alg: "ES256", use: "sig" };
  return { kid, jwk, sign: privateKey };
}

/** Seconds from now. */
export interface Lifetime {
  /** Issued, and valid from. */
  readonly from?: number;
  readonly until?: number;
}

/** Further names of the origin with TLS. */
export const leafNames = Array.from({ length: 64 }, (_, at) => `leaf-${at}.leaf.test`);

/** Everybody. */
export class Parties {
  readonly origin = new Party(serveContent);
  /** An origin of its own for whoever needs one that dies. */
  readonly doomed = new Party(serveContent);
  readonly backend = new Party(serveContent);
  readonly parent = new Party(serveContent);
  readonly opa = new Party((request, response) => {
    request.resume();
    response.setHeader("Content-Type", "application/json");
    response.end('{"result":true}');
  });
  readonly idp = new Party((request, response) => {
    request.resume();
    response.setHeader("Content-Type", "application/json");
    if (request.url === "/jwks") {
      response.end(JSON.stringify({ keys: this.#keys.map(({ jwk }) => jwk) }));
      return;
    }
    this.exchanges += 1;
    const token = {
      access_token: "exchanged",
      token_type: "Bearer",
      expires_in: this.tokenSeconds,
    };
    response.end(JSON.stringify(token));
  });
  #keys = [newKey("soak")];
  /** Tokens that the IdP has exchanged. */
  exchanges = 0;
  /** How long those it gives are good for. */
  tokenSeconds = 300;
  /** TLS with h2 and http/1.1. */
  secure = http2.createSecureServer();
  caPem = "";
  /** Sends every byte back. */
  readonly echo = net.createServer({ noDelay: true }, (socket) => {
    socket.on("error", () => undefined);
    socket.pipe(socket);
  });

  async start(): Promise<this> {
    const authority = await TestAuthority.create();
    this.caPem = authority.caPem;
    const { cert, key } = await authority.server(["localhost", "127.0.0.1", ...leafNames]);
    this.secure = http2.createSecureServer({ cert, key, allowHTTP1: true }, serveContent);
    this.secure.on("sessionError", () => undefined);
    await new Promise<void>((resolve) => this.secure.listen(0, "127.0.0.1", resolve));
    await new Promise<void>((resolve) => this.echo.listen(0, "127.0.0.1", 4_096, resolve));
    for (const party of this.all) await party.start();
    return this;
  }

  get all(): readonly Party[] {
    return [this.origin, this.doomed, this.backend, this.parent, this.opa, this.idp];
  }

  get securePort(): number {
    return (this.secure.address() as AddressInfo).port;
  }

  get echoPort(): number {
    return (this.echo.address() as AddressInfo).port;
  }

  get issuer(): string {
    return `http://127.0.0.1:${this.idp.port}`;
  }

  /** Signs with a new key from now on, which is published beside the first one. */
  rotate(): void {
    this.#keys = [newKey(`soak-${performance.now()}`), ...this.#keys.slice(-1)];
  }

  /** A caller's token; `subject` makes it one that was not seen before. */
  token(subject: string, { from = 0, until = 43_200 }: Lifetime = {}): Promise<string> {
    const [{ kid, sign } = newKey("none")] = this.#keys;
    const now = Math.floor(Date.now() / 1_000);
    return new SignJWT({ azp: "soak" })
      .setProtectedHeader({ alg: "ES256", kid, typ: "JWT" })
      .setIssuer(this.issuer)
      .setSubject(subject)
      .setAudience("agent")
      .setIssuedAt(Math.min(now, now + from))
      .setNotBefore(now + from)
      .setExpirationTime(now + until)
      .sign(sign);
  }

  async close(): Promise<void> {
    for (const party of this.all) await party.kill();
    this.secure.close();
    this.echo.close();
  }
}
