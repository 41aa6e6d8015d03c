/** One question to a provider of secrets, whose response is a JSON object; what went wrong in words for the operator. */
import { messageOf, ProxyError } from "../errors.ts";
import { isObject, type JsonObject, parseJsonObject, textOf } from "../http/json-access.ts";
import type { OperatorFetch, TrustedAuthorities } from "../http/operator-fetch.ts";
import type { ClientAuthentication } from "../oauth/client-authentication.ts";
import { withoutTokens } from "../oauth/token-response.ts";
import { Secret } from "../secret.ts";
import type { JwtSource } from "../spiffe/jwt-source.ts";
import { unavailable } from "./secret-source.ts";

/** What fetchers use of the generation that is running. */
export interface ProviderMeans {
  readonly call: OperatorFetch;
  /** The client that this program is at a token endpoint, or why it has nothing to show. */
  client?(this: void): ClientAuthentication | string;
  /** JWT-SVIDs of the Workload API; absent where the file has no `spiffe` block. */
  readonly svids?: JwtSource | undefined;
}

/** A question. */
export interface ProviderQuestion {
  readonly url: string;
  readonly method?: "GET" | "POST";
  readonly headers?: Readonly<Record<string, string>>;
  /** Sent as JSON, or a form as one. */
  readonly body?: URLSearchParams | JsonObject;
  readonly authorities?: TrustedAuthorities | undefined;
  readonly signal: AbortSignal;
}

/** What came back. */
export interface ProviderAnswer {
  readonly status: number;
  readonly fields: JsonObject;
}

/** Responses of providers are a few kilobytes. */
const maxResponseBytes = 256 * 1024;
const longestValue = 64 * 1024;

/** Asks once; rejects with `secret.unavailable` where the status is none of 2xx, and none of `also`. */
export async function askProvider(
  call: OperatorFetch,
  { url, method = "GET", headers = {}, body, authorities, signal }: ProviderQuestion,
  also: readonly number[] = [],
): Promise<ProviderAnswer> {
  const isForm = body instanceof URLSearchParams;
  const type = isForm ? "application/x-www-form-urlencoded" : "application/json";
  const text = body === undefined ? undefined : isForm ? body.toString() : JSON.stringify(body);
  const { origin, pathname } = new URL(url);
  const what = `${origin}${pathname}`;
  let response: Awaited<ReturnType<OperatorFetch>>;
  try {
    response = await call(url, {
      method,
      headers: {
        accept: "application/json",
        ...(text === undefined ? {} : { "content-type": type }),
        ...headers,
      },
      ...(text === undefined ? {} : { body: text }),
      maxBytes: maxResponseBytes,
      authorities,
      signal,
    });
  } catch (error) {
    if (!(error instanceof ProxyError)) throw error;
    throw unavailable(`${what}: ${messageOf(error)} (${error.code})`, error);
  }
  const { status } = response;
  const fields = parseJsonObject(response.body.toString("utf8"));
  if ((status < 200 || status > 299) && !also.includes(status))
    throw unavailable(`${what} answered ${status}${wordsOf(fields)}`);
  if (fields === undefined)
    throw unavailable(`${what} answered ${status} with something that is not a JSON object`);
  return { status, fields };
}

/** A member of a response that has to be a text that can be a secret. */
export function secretOf(value: unknown, what: string): Secret {
  const text = textOf(value);
  if (text === undefined) throw unavailable(`the provider answered without ${what}`);
  if (text.length > longestValue) throw unavailable(`the provider's ${what} is too long`);
  return new Secret(text);
}

/** A time in RFC 3339, in milliseconds since the epoch. */
export function instantOf(value: unknown, what: string): number {
  const at = typeof value === "string" ? Date.parse(value) : Number.NaN;
  if (Number.isNaN(at)) throw unavailable(`the provider answered with a ${what} that is no time`);
  return at;
}

/** What the provider said of its refusal, without anything that could be a secret. */
function wordsOf(fields: JsonObject | undefined): string {
  if (fields === undefined) return "";
  const { error, error_description: description, message, errors } = fields;
  const said = Array.isArray(errors) ? errors : [];
  const nested = isObject(error) ? [error["status"], error["message"]] : [error, description];
  const words = [...nested, message, ...said].filter((word) => typeof word === "string");
  return words.length === 0 ? "" : `: ${withoutTokens(words.join(": "))}`;
}
