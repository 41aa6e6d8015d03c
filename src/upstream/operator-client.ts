/** HTTP to the services that the operator's file names: fixed origins, bounded answers, no redirects. */
import { errors, Pool, request as sendRequest } from "./undici.ts";
import { messageOf, ProxyError } from "../errors.ts";
import { type Destination, parseAbsoluteTarget } from "../net/destination.ts";
import type { OperatorFetch, OperatorRequest, OperatorResponse } from "../pipeline/plugin.ts";
import { absoluteTarget } from "./origin-pools.ts";
import type { OriginTrust } from "./origin-trust.ts";
import type { AbsoluteForm, OperatorUpstream } from "./upstream.ts";

const defaultTimeoutMs = 30_000;
const defaultMaxBytes = 1_048_576;

/** The control-plane client of one generation. Agent traffic cannot reach it: proxy/ and listener/ never name it. */
export class OperatorClient {
  readonly #upstream: OperatorUpstream;
  readonly #trust: OriginTrust;
  readonly #pools = new Map<string, Pool>();
  readonly #closing = new AbortController();

  constructor(upstream: OperatorUpstream, trust: OriginTrust) {
    this.#upstream = upstream;
    this.#trust = trust;
  }

  /** A fetch that reaches these origins (`https://idp.example:8443`) and refuses every other. */
  fetchFor(origins: readonly string[]): OperatorFetch {
    const allowed = new Set(
      origins.map((origin) => parseAbsoluteTarget(origin).destination.origin),
    );
    return async (url, request = {}) => {
      const { destination, path } = parseAbsoluteTarget(url);
      if (!allowed.has(destination.origin)) {
        throw new ProxyError(
          "upstream.refused",
          `${destination.origin} is not an origin that this plugin's configuration names`,
        );
      }
      return this.#send(destination, path, request);
    };
  }

  async close(): Promise<void> {
    this.#closing.abort();
    await Promise.allSettled([...this.#pools.values()].map((pool) => pool.destroy()));
    this.#pools.clear();
  }

  async #send(
    destination: Destination,
    path: string,
    request: OperatorRequest,
  ): Promise<OperatorResponse> {
    const timeout = AbortSignal.timeout(request.timeoutMs ?? defaultTimeoutMs);
    const signals = request.signal === undefined ? [timeout] : [timeout, request.signal];
    const form = this.#upstream.absoluteFormOperator(destination);
    try {
      const answer = await sendRequest.call(this.#poolFor(destination, form), {
        method: request.method ?? "GET",
        path: form === undefined ? path : absoluteTarget(destination, path),
        headers: headersOf(destination, request, form),
        body: request.body ?? null,
        signal: AbortSignal.any(signals),
      });
      const refusal = form?.refusal(answer.statusCode, answer.headers);
      if (refusal !== undefined) {
        await answer.body.dump();
        throw refusal;
      }
      const body = await collect(answer.body, request.maxBytes ?? defaultMaxBytes, destination);
      return { status: answer.statusCode, headers: flatten(answer.headers), body };
    } catch (error) {
      const fault = error instanceof Error ? (form?.fault(error) ?? error) : error;
      throw this.#fault(destination, fault, timeout.aborted);
    }
  }

  #poolFor(destination: Destination, form: AbsoluteForm | undefined): Pool {
    const key = form === undefined ? destination.origin : `parent ${form.label}`;
    const known = this.#pools.get(key);
    if (known !== undefined) return known;
    const pool = new Pool(form === undefined ? destination.origin : "http://upstream-proxy", {
      connections: 16,
      allowH2: false,
      connect: (_options, callback) => {
        this.#open(destination, form).then(
          (socket) => callback(null, socket),
          (error: unknown) =>
            callback(error instanceof Error ? error : new Error(String(error)), null),
        );
      },
    });
    this.#pools.set(key, pool);
    return pool;
  }

  async #open(
    destination: Destination,
    form: AbsoluteForm | undefined,
  ): ReturnType<OperatorUpstream["connectOperator"]> {
    if (form !== undefined) return form.connect(this.#closing.signal);
    const socket = await this.#upstream.connectOperator(destination, this.#closing.signal);
    return destination.scheme === "https" ? this.#trust.secure(socket, destination) : socket;
  }

  #fault(destination: Destination, error: unknown, timedOut: boolean): ProxyError {
    if (error instanceof ProxyError) return error;
    const { origin } = destination;
    if (
      timedOut ||
      error instanceof errors.HeadersTimeoutError ||
      error instanceof errors.BodyTimeoutError
    ) {
      return new ProxyError("upstream.timeout", `${origin} did not answer in time`, {
        cause: error,
      });
    }
    if (error instanceof errors.HTTPParserError) {
      return new ProxyError("upstream.bad-response", `${origin} did not answer in HTTP`, {
        cause: error,
      });
    }
    return new ProxyError("upstream.reset", `${origin} failed: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function headersOf(
  destination: Destination,
  request: OperatorRequest,
  form: AbsoluteForm | undefined,
): Record<string, string> {
  if (form === undefined) return { ...request.headers };
  const headers: Record<string, string> = { ...request.headers, host: destination.hostHeader };
  const fields = form.fields();
  for (let at = 0; at + 1 < fields.length; at += 2)
    headers[fields[at] ?? ""] = fields[at + 1] ?? "";
  return headers;
}

async function collect(
  body: AsyncIterable<Buffer>,
  maxBytes: number,
  destination: Destination,
): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > maxBytes) {
      throw new ProxyError(
        "upstream.response-too-large",
        `${destination.origin} answered with more than ${maxBytes} bytes`,
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
