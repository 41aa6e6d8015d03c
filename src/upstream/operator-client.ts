/** HTTP to the services that the operator's file names: fixed origins, bounded answers, no redirects. */
import { errors, Pool, request as sendRequest } from "./undici.ts";
import { messageOf, ProxyError } from "../errors.ts";
import type { OperatorFetch, OperatorRequest, OperatorResponse } from "../pipeline/plugin.ts";
import { type OperatorOrigin, parseOperatorTarget } from "./operator-origin.ts";
import type { OriginTrust } from "./origin-trust.ts";
import type { DirectUpstream } from "./upstream.ts";

const defaultTimeoutMs = 30_000;
const defaultMaxBytes = 1_048_576;

/** The control-plane client of one generation. Agent traffic cannot reach it: proxy/ and listener/ never name it. */
export class OperatorClient {
  readonly #upstream: DirectUpstream;
  readonly #trust: OriginTrust;
  readonly #pools = new Map<string, Pool>();
  readonly #closing = new AbortController();

  constructor(upstream: DirectUpstream, trust: OriginTrust) {
    this.#upstream = upstream;
    this.#trust = trust;
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
      return this.#send(origin, path, request);
    };
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled([...this.#pools.values()].map((pool) => pool.destroy()));
    this.#pools.clear();
  }

  async #send(
    origin: OperatorOrigin,
    path: string,
    request: OperatorRequest,
  ): Promise<OperatorResponse> {
    const timeout = AbortSignal.timeout(request.timeoutMs ?? defaultTimeoutMs);
    const signals = request.signal === undefined ? [timeout] : [timeout, request.signal];
    try {
      const answer = await sendRequest.call(this.#poolFor(origin), {
        method: request.method ?? "GET",
        path,
        headers: { ...request.headers },
        body: request.body ?? null,
        signal: AbortSignal.any(signals),
      });
      const body = await collect(answer.body, request.maxBytes ?? defaultMaxBytes, origin);
      return { status: answer.statusCode, headers: flatten(answer.headers), body };
    } catch (error) {
      throw this.#fault(origin, error, timeout.aborted);
    }
  }

  #poolFor(origin: OperatorOrigin): Pool {
    const known = this.#pools.get(origin.name);
    if (known !== undefined) return known;
    // A service behind a socket has no name of its own.
    const pool = new Pool(origin.kind === "socket" ? "http://localhost" : origin.name, {
      connections: 16,
      allowH2: false,
      connect: (_options, callback) => {
        this.#open(origin).then(
          (socket) => callback(null, socket),
          (error: unknown) =>
            callback(error instanceof Error ? error : new Error(String(error)), null),
        );
      },
    });
    this.#pools.set(origin.name, pool);
    return pool;
  }

  async #open(origin: OperatorOrigin): ReturnType<DirectUpstream["connectOperator"]> {
    if (origin.kind === "socket") {
      return this.#upstream.connectOperatorSocket(origin.path, this.#closing.signal);
    }
    const { destination } = origin;
    const socket = await this.#upstream.connectOperator(destination, this.#closing.signal);
    return destination.scheme === "https" ? this.#trust.secure(socket, destination) : socket;
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
    return new ProxyError("upstream.reset", `${name} failed: ${messageOf(error)}`, {
      cause: error,
    });
  }
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
