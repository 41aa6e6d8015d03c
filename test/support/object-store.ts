/** Endpoints of AWS on loopback: an object store, a JSON service and an event stream, behind a strict check of signatures. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createSecureServer } from "node:http2";
import type { AddressInfo, Socket } from "node:net";
import { type ArrivedRequest, type KnownKey, verified, type Verified } from "./aws-verifier.ts";
import type { ServerCertificate } from "./certs.ts";

/** A request, what was found of it, and what it was decoded to. */
export interface Served {
  readonly request: ArrivedRequest;
  readonly verdict: Verified;
  readonly httpVersion: string;
}

/** Takes only requests that are signed with a key that it knows. */
export class ObjectStore {
  readonly served: Served[] = [];
  readonly objects = new Map<string, Buffer>();
  /** May change while the store runs: keys are rotated. */
  keys: KnownKey[];
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(server: Server, keys: KnownKey[]) {
    this.#server = server;
    this.keys = keys;
    server.on("connection", (socket: Socket) => {
      this.#sockets.add(socket);
      socket.once("close", () => this.#sockets.delete(socket));
    });
    server.on("request", (request: IncomingMessage, response: ServerResponse) => {
      void this.#serve(request, response);
    });
    server.on("tlsClientError", () => undefined);
  }

  /** Over TLS, HTTP/1.1 and HTTP/2, where there is a certificate. */
  static async start(keys: KnownKey[], certificate?: ServerCertificate): Promise<ObjectStore> {
    const server =
      certificate === undefined
        ? createServer()
        : (createSecureServer({ ...certificate, allowHTTP1: true }) as unknown as Server);
    const store = new ObjectStore(server, keys);
    await new Promise<void>((resolve) => {
      server.listen(0, "127.0.0.1", resolve);
    });
    return store;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** What the last request was found to be. */
  get last(): Served | undefined {
    return this.served.at(-1);
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    request.on("error", () => undefined);
    response.on("error", () => undefined);
    const arrived = await arrivedOf(request);
    if (arrived === undefined) return;
    let verdict: Verified = { kind: "wrong", why: "no key" };
    for (const key of this.keys) {
      verdict = verified(arrived, key);
      if (verdict.kind === "right") break;
    }
    this.served.push({ request: arrived, verdict, httpVersion: request.httpVersion });
    if (verdict.kind === "wrong") refuse(arrived, response, verdict.why);
    else if (verdict.service === "s3") this.#object(arrived, response, verdict.body);
    else answer(arrived, response);
  }

  #object({ method, target }: ArrivedRequest, response: ServerResponse, body: Buffer): void {
    const url = new URL(target, "http://store");
    const key = decodeURIComponent(target.split("?")[0] ?? "");
    if (url.searchParams.has("list-type")) {
      const prefix = `${key.replace(/\/$/, "")}/`;
      const keys = [...this.objects.keys()].filter((name) => name.startsWith(prefix));
      const contents = keys.map(
        (name) =>
          `<Contents><Key>${escaped(name.slice(prefix.length))}</Key><Size>1</Size></Contents>`,
      );
      response.setHeader("content-type", "application/xml");
      response.end(
        `<?xml version="1.0"?><ListBucketResult><Name>b</Name><Prefix>${escaped(url.searchParams.get("prefix") ?? "")}</Prefix><KeyCount>${keys.length}</KeyCount><IsTruncated>false</IsTruncated>${contents.join("")}</ListBucketResult>`,
      );
      return;
    }
    if (key.endsWith("/moved")) {
      response.writeHead(307, { location: `https://elsewhere.example${target}` });
      response.end(`<Error><Code>TemporaryRedirect</Code><Url>${escaped(target)}</Url></Error>`);
      return;
    }
    if (method === "PUT") {
      this.objects.set(key, body);
      response.writeHead(200, { etag: '"1"' });
      response.end();
      return;
    }
    const object = this.objects.get(key);
    if (method === "DELETE") {
      this.objects.delete(key);
      response.writeHead(204).end();
    } else if (object === undefined) {
      response.writeHead(404, { "content-type": "application/xml" });
      response.end(method === "HEAD" ? undefined : "<Error><Code>NoSuchKey</Code></Error>");
    } else {
      response.writeHead(200, { "content-length": object.length });
      response.end(method === "HEAD" ? undefined : object);
    }
  }
}

/** What a service that speaks JSON, or an event stream, says. */
function answer({ target }: ArrivedRequest, response: ServerResponse): void {
  if (target.endsWith("-stream")) {
    response.writeHead(200, { "content-type": "application/vnd.amazon.eventstream" });
    response.end(Buffer.from("raw frames"));
    return;
  }
  response.setHeader("content-type", "application/x-amz-json-1.0");
  response.end('{"ok":true}');
}

/** S3 repeats in an error all that it computed with. */
function refuse(request: ArrivedRequest, response: ServerResponse, why: string): void {
  const all = request.fields.map(([name, value]) => `${name}:${value}`).join("\n");
  response.writeHead(403, { "content-type": "application/xml" });
  response.end(
    `<Error><Code>SignatureDoesNotMatch</Code><Message>${escaped(why)}</Message><CanonicalRequest>${escaped(`${request.target}\n${all}`)}</CanonicalRequest></Error>`,
  );
}

function escaped(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

async function arrivedOf(request: IncomingMessage): Promise<ArrivedRequest | undefined> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of request) chunks.push(chunk as Buffer);
  } catch {
    return undefined;
  }
  const fields: [string, string][] = [];
  for (let at = 0; at < request.rawHeaders.length; at += 2) {
    const [name = "", value = ""] = request.rawHeaders.slice(at, at + 2);
    if (name === ":authority") fields.push(["host", value]);
    else if (!name.startsWith(":")) fields.push([name, value]);
  }
  const { method = "", url: target = "" } = request;
  return { method, target, fields, body: Buffer.concat(chunks) };
}
