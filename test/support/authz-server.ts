/** Authorization services that speak Envoy's ext_authz: over gRPC with grpc-js and the messages of a .proto, and over HTTP. */
import { createServer, type IncomingHttpHeaders, type Server as HttpServer } from "node:http";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import {
  type GrpcObject,
  type handleUnaryCall,
  loadPackageDefinition,
  type Metadata,
  Server,
  ServerCredentials,
  type ServiceClientConstructor,
} from "@grpc/grpc-js";

/** The loader that grpc-js itself comes with. */
const loader = createRequire(createRequire(import.meta.url).resolve("@grpc/grpc-js"))(
  "@grpc/proto-loader",
) as { loadSync(path: string, options: object): Parameters<typeof loadPackageDefinition>[0] };

const proto = fileURLToPath(new URL("../fixtures/ext-authz/ext-authz.proto", import.meta.url));

/** One end of a request. */
interface SeenPeer {
  readonly address: { readonly socket_address: { readonly address: string; port_value: number } };
  readonly principal: string;
  readonly certificate: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** A CheckRequest as a service sees it. */
export interface SeenCheck {
  readonly metadata: Metadata;
  readonly attributes: {
    readonly source: SeenPeer;
    readonly destination: SeenPeer;
    readonly request: {
      readonly time: { readonly seconds: string };
      readonly http: {
        readonly id: string;
        readonly method: string;
        readonly headers: Readonly<Record<string, string>>;
        readonly path: string;
        readonly host: string;
        readonly scheme: string;
        readonly query: string;
        readonly size: string;
        readonly protocol: string;
        readonly body: string;
        readonly raw_body: Buffer;
        readonly header_map: { readonly headers: readonly { key: string; raw_value: Buffer }[] };
      };
    };
    readonly context_extensions: Readonly<Record<string, string>>;
    readonly metadata_context: { readonly filter_metadata: Readonly<Record<string, unknown>> };
    readonly tls_session: { readonly sni: string } | null;
  };
}

/** A CheckResponse, an error of gRPC, or no answer at all. */
export type CheckAnswer = object | { readonly code: number; readonly details: string } | "hang";

/** What lets everything pass. */
export const okAnswer = { status: { code: 0 }, ok_response: {} };

/** A denial. */
export function deniedAnswer(status: number, body = "", headers: Record<string, string> = {}) {
  return {
    status: { code: 7 },
    denied_response: { status: { code: status }, body, headers: setFields(headers) },
  };
}

/** HeaderValueOptions that say nothing of how they are added. */
export function setFields(headers: Readonly<Record<string, string>>) {
  return Object.entries(headers).map(([key, value]) => ({ header: { key, value } }));
}

/** A JSON object as a google.protobuf.Struct. */
export function struct(fields: Readonly<Record<string, string | number | boolean>>) {
  const valueOf = (value: string | number | boolean): object =>
    typeof value === "string"
      ? { stringValue: value }
      : typeof value === "number"
        ? { numberValue: value }
        : { boolValue: value };
  return {
    fields: Object.fromEntries(
      Object.entries(fields).map(([name, value]) => [name, valueOf(value)]),
    ),
  };
}

/** The service over gRPC. */
export class GrpcAuthz {
  readonly calls: SeenCheck[] = [];
  answer: (call: SeenCheck) => CheckAnswer | Promise<CheckAnswer> = () => okAnswer;
  port = 0;
  readonly #server = new Server();
  readonly #isSecure: boolean;

  private constructor(isSecure: boolean) {
    this.#isSecure = isSecure;
  }

  static async start(credentials?: ServerCredentials, address = "127.0.0.1:0"): Promise<GrpcAuthz> {
    const authz = new GrpcAuthz(credentials !== undefined);
    const definition = loader.loadSync(proto, { keepCase: true, longs: String, defaults: true });
    const envoy = loadPackageDefinition(definition)["envoy"] as GrpcObject;
    const auth = (envoy["service"] as GrpcObject)["auth"] as GrpcObject;
    const { service } = (auth["v3"] as GrpcObject)["Authorization"] as ServiceClientConstructor;
    authz.#server.addService(service, { Check: authz.#check });
    authz.port = await new Promise<number>((resolve, reject) => {
      authz.#server.bindAsync(
        address,
        credentials ?? ServerCredentials.createInsecure(),
        (error, port) => (error === null ? resolve(port) : reject(error)),
      );
    });
    return authz;
  }

  get url(): string {
    return `${this.#isSecure ? "https://localhost" : "http://127.0.0.1"}:${this.port}`;
  }

  /** The last question. */
  get last(): SeenCheck["attributes"] {
    const call = this.calls.at(-1);
    if (call === undefined) throw new Error("nobody has asked");
    return call.attributes;
  }

  close(): Promise<void> {
    this.#server.forceShutdown();
    return Promise.resolve();
  }

  readonly #check: handleUnaryCall<SeenCheck, object> = async (call, reply) => {
    const seen = { ...call.request, metadata: call.metadata };
    this.calls.push(seen);
    const answer = await this.answer(seen);
    if (answer === "hang") return;
    if ("details" in answer) reply(answer, null);
    else reply(null, answer);
  };
}

/** A question over HTTP. */
export interface SeenQuestion {
  readonly method: string;
  readonly url: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

/** What the service answers. */
export interface HttpAnswer {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string | string[]>>;
  readonly body?: string;
}

/** The service over HTTP. */
export class HttpAuthz {
  readonly calls: SeenQuestion[] = [];
  answer: (call: SeenQuestion) => HttpAnswer | "hang" | "reset" = () => ({ status: 200 });
  readonly #server: HttpServer = createServer((request, response) => {
    void buffer(request).then((body) => {
      const { method = "", url = "", headers } = request;
      const call = { method, url, headers, body: body.toString("utf8") };
      this.calls.push(call);
      const answer = this.answer(call);
      if (answer === "hang") return;
      if (answer === "reset") request.socket.destroy();
      else response.writeHead(answer.status, answer.headers).end(answer.body);
    });
  });

  static async start(): Promise<HttpAuthz> {
    const authz = new HttpAuthz();
    await new Promise<void>((resolve) => authz.#server.listen(0, "127.0.0.1", resolve));
    return authz;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }
}
