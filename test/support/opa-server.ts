/** Stand-ins for what the opa plugin speaks to: an OPA server's REST data API, and a server of bundles. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";

/** What a decision was asked with. */
export interface DataCall {
  /** `authbridge/outbound/request` */
  readonly path: string;
  readonly input: Readonly<Record<string, unknown>>;
  readonly headers: IncomingMessage["headers"];
}

/** What the API answers: a result, nothing at all, an error, or never. */
export type DataAnswer =
  | { readonly result?: unknown; readonly decision_id?: string }
  | { readonly status: number; readonly body: string }
  | "hang"
  | "reset";

async function listen(server: Server, where: number | string): Promise<void> {
  await new Promise<void>((resolve) => {
    if (typeof where === "string") server.listen(where, resolve);
    else server.listen(where, "127.0.0.1", resolve);
  });
}

async function close(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}

/** Speaks POST /v1/data/PATH and GET /health as OPA does. */
export class StubOpa {
  readonly calls: DataCall[] = [];
  connections = 0;
  isHealthy = true;
  answer: (call: DataCall) => DataAnswer = ({ path, input }) => decideCase(path, input);
  readonly #server = createServer((request, response) => void this.#serve(request, response));

  /** `where` is a port or the path of a Unix socket. */
  static async start(where: number | string = 0): Promise<StubOpa> {
    const stub = new StubOpa();
    stub.#server.on("connection", () => (stub.connections += 1));
    await listen(stub.#server, where);
    return stub;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): Promise<void> {
    return close(this.#server);
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = request.url ?? "";
    if (url.startsWith("/health")) {
      response.writeHead(this.isHealthy ? 200 : 500).end("{}");
      return;
    }
    const body = JSON.parse((await buffer(request)).toString("utf8")) as {
      input: DataCall["input"];
    };
    const call = {
      path: url.replace("/v1/data/", ""),
      input: body.input,
      headers: request.headers,
    };
    this.calls.push(call);
    const answer = this.answer(call);
    if (answer === "hang") return;
    if (answer === "reset") {
      request.socket.destroy();
      return;
    }
    const isError = "body" in answer;
    response.writeHead(isError ? answer.status : 200, { "Content-Type": "application/json" });
    response.end(isError ? answer.body : JSON.stringify(answer));
  }
}

const fixed: Readonly<Record<string, unknown>> = {
  true: true,
  false: false,
  allow: { allow: true },
  deny: { allow: false },
  reason: { allow: false, reason: "access denied for tool" },
  shape: { foo: "bar" },
  text: "unexpected",
  number: 1,
  nil: null,
};

/** What the policy of test/fixtures/opa/cases decides. */
export function decideCase(path: string, input: DataCall["input"]): DataAnswer {
  if (input["method"] === "CONNECT") return { result: true };
  const segments = String(input["path"]).split("/");
  const atAnswer = segments[1] === "at-answer";
  const kind =
    (atAnswer ? (input["response"] === undefined ? "true" : segments[2]) : segments[1]) ?? "";
  if (Object.hasOwn(fixed, kind)) return { result: fixed[kind] };
  if (kind === "which") return { result: { allow: false, reason: path } };
  if (kind === "conflict") return { status: 500, body: '{"code":"internal_error"}' };
  if (kind === "slow") return "hang";
  return {};
}

/** Serves one bundle with an ETag, whatever the path. */
export class BundleServer {
  readonly asked: { readonly url: string; readonly headers: IncomingMessage["headers"] }[] = [];
  readonly statuses: number[] = [];
  bundle: Buffer;
  etag: string;
  /** Set to answer an error instead. */
  failure: number | undefined;
  readonly #server = createServer((request, response) => this.#serve(request, response));

  constructor(bundle: Buffer, etag: string) {
    this.bundle = bundle;
    this.etag = etag;
  }

  async listen(port = 0): Promise<this> {
    await listen(this.#server, port);
    return this;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  put(bundle: Buffer, etag: string): void {
    this.bundle = bundle;
    this.etag = etag;
  }

  close(): Promise<void> {
    return close(this.#server);
  }

  #serve(request: IncomingMessage, response: ServerResponse): void {
    this.asked.push({ url: request.url ?? "", headers: request.headers });
    const isKnown = request.headers["if-none-match"] === this.etag;
    const status = this.failure ?? (isKnown ? 304 : 200);
    this.statuses.push(status);
    response.writeHead(status, { ETag: this.etag });
    response.end(status === 200 ? this.bundle : undefined);
  }
}
