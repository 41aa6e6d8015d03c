/** HTTP to the services that the operator's file names: fixed origins, bounded responses, no redirects. */
import type { Socket } from "node:net";
import { connector, errors, Pool, request as sendRequest } from "./undici.ts";
import { ClientFault } from "../wire/client-fault.ts";
import { MalformedMessage } from "../wire/malformed.ts";
import { messageOf, ProxyError } from "../errors.ts";
import type { TrustedAuthorities } from "../http/operator-fetch.ts";
import type { Destination } from "../net/destination.ts";
import type {
  ClientCertificate,
  OperatorFetch,
  OperatorRequest,
  OperatorResponse,
} from "../pipeline/plugin.ts";
import { grpcFault, GrpcSessions } from "./operator-grpc.ts";
import { type OperatorOrigin, parseOperatorTarget } from "./operator-origin.ts";
import { absoluteTarget } from "./absolute-form.ts";
import type { OriginTrust } from "./origin-trust.ts";
import type { AbsoluteForm, OperatorUpstream } from "./upstream.ts";

const defaultTimeoutMs = 30_000;
const defaultMaxBytes = 1_048_576;

/** To one service; further calls wait for one of them. */
const maxConnections = 16;

const http1 = ["http/1.1"] as const;
const http2 = ["h2"] as const;
/** Sets of pools of connections that show a certificate, or trust others than the rest; beyond it the oldest is closed once its requests are done. */
const maxCertified = 64;

/** A request that a parent forwards. */
interface ParentWay {
  readonly form: AbsoluteForm;
  readonly destination: Destination;
}

/** How a service is reached: through a parent, with a certificate, by authorities of its own, or none of that. */
interface Way {
  readonly parent?: ParentWay | undefined;
  readonly certificate?: ClientCertificate | undefined;
  readonly authorities?: TrustedAuthorities | undefined;
  readonly isHeld: boolean;
}

/** Who is told how the calls went; milliseconds. */
export interface CallTally {
  answered(origin: string, ms: number): void;
  failed(origin: string, ms: number, why: string): void;
}

/** The control-plane client of one generation. Agent traffic cannot reach it: proxy/ and listener/ never name it. */
export class OperatorClient {
  readonly #upstream: OperatorUpstream;
  readonly #trust: OriginTrust;
  readonly #pools = new Map<string, Pool>();
  /** Connections that show a certificate or have their own authorities, of each for itself. */
  readonly #certified = new Map<ClientCertificate | TrustedAuthorities, Map<string, Pool>>();
  readonly #grpc = new GrpcSessions((origin, certificate) => this.#openHttp2(origin, certificate));
  readonly #closing = new AbortController();
  readonly #calls: CallTally | undefined;

  constructor(upstream: OperatorUpstream, trust: OriginTrust, calls?: CallTally) {
    this.#upstream = upstream;
    this.#trust = trust;
    this.#calls = calls;
  }

  /** A fetch that reaches these origins (`https://idp.example:8443`, `unix:///run/opa.sock`) and refuses every other. */
  fetchFor(origins: readonly string[]): OperatorFetch {
    const allowed = new Set(origins.map((origin) => parseOperatorTarget(origin).origin.name));
    return async (url, request = {}) => {
      const { origin, path } = parseOperatorTarget(url);
      if (!allowed.has(origin.name)) {
        throw new ProxyError(
          "upstream.refused",
          `${origin.name} is not an origin that this plugin's configuration names`,
        );
      }
      return this.#counted(origin, path, request);
    };
  }

  async close(): Promise<void> {
    this.#closing.abort();
    this.#grpc.close();
    const all = [this.#pools, ...this.#certified.values()].flatMap((pools) => [...pools.values()]);
    await Promise.allSettled(all.map((pool) => pool.destroy()));
    this.#pools.clear();
    this.#certified.clear();
  }

  async #counted(
    origin: OperatorOrigin,
    path: string,
    request: OperatorRequest,
  ): Promise<OperatorResponse> {
    const began = performance.now();
    try {
      const response = await this.#send(origin, path, request);
      this.#calls?.answered(origin.name, performance.now() - began);
      return response;
    } catch (error) {
      // A call that its own asker gave up says nothing about the service.
      if (request.signal?.aborted !== true)
        this.#calls?.failed(origin.name, performance.now() - began, codeOf(error));
      throw error;
    }
  }

  async #send(
    origin: OperatorOrigin,
    path: string,
    request: OperatorRequest,
  ): Promise<OperatorResponse> {
    const timeout = AbortSignal.timeout(request.timeoutMs ?? defaultTimeoutMs);
    const signals = request.signal === undefined ? [timeout] : [timeout, request.signal];
    const { certificate, authorities, isHeld = false } = request;
    if (certificate !== undefined && !isSecure(origin)) {
      const message = `${origin.name} can be shown no client certificate: its address is not https`;
      throw new ProxyError("upstream.refused", message);
    }
    const way = this.#wayOf(origin);
    if (request.isGrpc === true) {
      if (way !== undefined) {
        const message = `${origin.name} cannot be asked over gRPC through the parent proxy, which takes requests for it whole: give it an https address, or list it in no_proxy`;
        throw new ProxyError("upstream.refused", message);
      }
      const maxBytes = request.maxBytes ?? defaultMaxBytes;
      const signal = AbortSignal.any(signals);
      return this.#grpc
        .call({ origin, path, request, maxBytes, signal })
        .catch((error: unknown) => {
          if (error instanceof ProxyError || timeout.aborted)
            throw this.#fault(origin, error, timeout.aborted);
          throw grpcFault(origin.name, error);
        });
    }
    try {
      const response = await sendRequest.call(
        this.#poolFor(origin, { parent: way, certificate, authorities, isHeld }),
        {
          method: request.method ?? "GET",
          path: way === undefined ? path : absoluteTarget(way.destination, path),
          headers: headersOf(request, way),
          body: request.body ?? null,
          signal: AbortSignal.any(signals),
          // The signal ends the whole call; the client's own limits are shorter than what a held one may take.
          headersTimeout: 0,
          bodyTimeout: 0,
        },
      );
      const headers = flatten(response.headers);
      const refusal = way?.form.refusal(response.statusCode, Object.entries(headers).flat());
      if (refusal !== undefined) {
        await response.body.dump();
        throw refusal;
      }
      const body = await collect(response.body, request.maxBytes ?? defaultMaxBytes, origin);
      const { "set-cookie": cookies = [] } = response.headers;
      return { status: response.statusCode, headers, setCookies: [cookies].flat(), body };
    } catch (error) {
      const fault = error instanceof Error ? (way?.form.fault(ownFault(error)) ?? error) : error;
      throw this.#fault(origin, fault, timeout.aborted);
    }
  }

  /** The parent that takes requests for this origin whole, where there is one. */
  #wayOf(origin: OperatorOrigin): ParentWay | undefined {
    if (origin.kind === "socket") return undefined;
    const { destination } = origin;
    const form = this.#upstream.absoluteFormOperator(destination);
    return form === undefined ? undefined : { form, destination };
  }

  #poolFor(origin: OperatorOrigin, way: Way): Pool {
    const { parent, certificate, authorities, isHeld } = way;
    const own = certificate ?? authorities;
    const pools = own === undefined ? this.#pools : this.#poolsOf(own);
    const next = parent === undefined ? origin.name : `parent ${parent.form.label}`;
    const key = isHeld ? `held ${next}` : next;
    const known = pools.get(key);
    if (known !== undefined) return known;
    // A service behind a socket has no name of its own, and a parent speaks for many.
    const isNamed = origin.kind === "network" && parent === undefined;
    const pool = new Pool(isNamed ? origin.name : "http://localhost", {
      connections: isHeld ? null : maxConnections,
      allowH2: false,
      connect: connector(() => this.#open(origin, way)),
    });
    pools.set(key, pool);
    return pool;
  }

  /** The pools of one certificate or of its own authorities. What was replaced leaves pools in which nothing is connected any more. */
  #poolsOf(own: ClientCertificate | TrustedAuthorities): Map<string, Pool> {
    const known = this.#certified.get(own);
    if (known !== undefined) return known;
    for (const [other, pools] of this.#certified) {
      const isIdle = [...pools.values()].every(({ stats }) => stats.connected + stats.size === 0);
      if (!isIdle && this.#certified.size < maxCertified) continue;
      this.#certified.delete(other);
      for (const pool of pools.values()) void pool.close();
    }
    const made = new Map<string, Pool>();
    this.#certified.set(own, made);
    return made;
  }

  async #open(
    origin: OperatorOrigin,
    { parent, certificate, authorities }: Way,
  ): ReturnType<OperatorUpstream["connectOperator"]> {
    if (parent !== undefined) return parent.form.connect(this.#closing.signal);
    if (origin.kind === "socket") {
      return this.#upstream.connectOperatorSocket(origin.path, this.#closing.signal);
    }
    const { destination } = origin;
    const socket = await this.#upstream.connectOperator(destination, this.#closing.signal);
    if (!isSecure(origin)) return socket;
    const trust = authorities === undefined ? this.#trust : this.#trust.only(authorities);
    return trust.secure(socket, destination, http1, certificate);
  }

  async #openHttp2(
    origin: OperatorOrigin,
    certificate: ClientCertificate | undefined,
  ): Promise<Socket> {
    const { signal } = this.#closing;
    if (origin.kind === "socket") return this.#upstream.connectOperatorSocket(origin.path, signal);
    const { destination } = origin;
    const socket = await this.#upstream.connectOperator(destination, signal);
    if (!isSecure(origin)) return socket;
    const secured = await this.#trust.secure(socket, destination, http2, certificate);
    if (secured.alpnProtocol === "h2") return secured;
    secured.destroy();
    throw new ProxyError("upstream.tls", `${origin.name} does not offer HTTP/2 (ALPN h2)`);
  }

  #fault(origin: OperatorOrigin, error: unknown, timedOut: boolean): ProxyError {
    if (error instanceof ProxyError) return error;
    const { name } = origin;
    if (
      timedOut ||
      error instanceof errors.HeadersTimeoutError ||
      error instanceof errors.BodyTimeoutError
    ) {
      return new ProxyError("upstream.timeout", `${name} did not answer in time`, {
        cause: error,
      });
    }
    if (error instanceof errors.HTTPParserError) {
      return new ProxyError("upstream.bad-response", `${name} did not answer in HTTP`, {
        cause: error,
      });
    }
    if (isCertificateAlert(error)) {
      const message = `${name} does not accept this client's certificate, or wants one: ${messageOf(error)}`;
      return new ProxyError("upstream.tls", message, { cause: error });
    }
    return new ProxyError("upstream.reset", `${name} failed: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function codeOf(error: unknown): string {
  return error instanceof ProxyError ? error.code : "internal.fault";
}

function isSecure(origin: OperatorOrigin): boolean {
  return origin.kind === "network" && origin.destination.scheme === "https";
}

/** TLS 1.3 lets a server judge the client's certificate after the handshake is over for the client (RFC 8446 section 6.2). */
function isCertificateAlert(error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  return /^ERR_SSL_.*_ALERT_(?:.*CERTIFICATE.*|UNKNOWN_CA|ACCESS_DENIED)$/.test(code);
}

/** undici's error as one of ours, where a parent words it. */
function ownFault(error: Error): Error {
  if (error instanceof errors.HeadersTimeoutError)
    return new ClientFault("response-timeout", error.message, error);
  if (error instanceof errors.HTTPParserError) return new MalformedMessage(error.message);
  if (error instanceof errors.SocketError) return new ClientFault("closed", error.message, error);
  return error;
}

function headersOf(request: OperatorRequest, way: ParentWay | undefined): Record<string, string> {
  if (way === undefined) return { ...request.headers };
  const { form, destination } = way;
  const headers: Record<string, string> = { ...request.headers, host: destination.hostHeader };
  const fields = form.fields();
  for (let at = 0; at + 1 < fields.length; at += 2)
    headers[fields[at] ?? ""] = fields[at + 1] ?? "";
  return headers;
}

async function collect(
  body: AsyncIterable<Buffer>,
  maxBytes: number,
  origin: OperatorOrigin,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxBytes) {
      throw new ProxyError(
        "upstream.response-too-large",
        `${origin.name} answered with more than ${maxBytes} bytes`,
      );
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function flatten(headers: Record<string, string | string[] | undefined>): Record<string, string> {
  const flat: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (value !== undefined) flat[name] = Array.isArray(value) ? value.join(", ") : value;
  }
  return flat;
}
