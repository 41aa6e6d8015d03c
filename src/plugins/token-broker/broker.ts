/** The broker: a service that has, or gets with a user's consent, the token that a server wants for that user. */
import { ProxyError } from "../../errors.ts";
import { bounded, objectOf, textOf } from "../../http/json-access.ts";
import { parseStrictJson } from "../../http/strict-json.ts";
import type { OperatorFetch, OperatorResponse } from "../../pipeline/plugin.ts";
import { Secret } from "../../secret.ts";

/** What is asked for. */
export interface BrokerQuestion {
  readonly subject: Secret;
  /** Scheme and authority of the server that the token is for. */
  readonly serverUrl: string;
  readonly authorizationEndpoint?: string | undefined;
  readonly tokenEndpoint?: string | undefined;
}

/** What the broker said. */
export type BrokerAnswer =
  | { readonly kind: "token"; readonly token: Secret }
  /** `message` is fit for the agent. */
  | {
      readonly kind: "refused";
      readonly status: number;
      readonly message: string;
      readonly retryAfter?: string | undefined;
    }
  /** There is no answer, or none that means anything; `why` names no address. */
  | { readonly kind: "unavailable"; readonly why: string };

const maxResponseBytes = 1_048_576;
const maxTokenChars = 65_536;
const maxMessageChars = 500;

/** Asks one broker. Never rejects for what goes wrong with it. */
export class Broker {
  readonly #fetch: OperatorFetch;
  readonly #url: string;
  /** The broker's own, which no agent has to know. */
  readonly #places: readonly string[];
  readonly #timeoutMs: number;

  constructor(fetch: OperatorFetch, url: string, timeoutMs: number) {
    this.#fetch = fetch;
    this.#url = `${url.replace(/\/+$/, "")}/sessions/token`;
    const { host, hostname } = new URL(url);
    // A service may be called by a word that is no address, such as `broker`.
    this.#places = [`//${hostname}`, ...[host, hostname].filter((name) => /[.:]/.test(name))];
    this.#timeoutMs = timeoutMs;
  }

  async ask(question: BrokerQuestion, signal: AbortSignal): Promise<BrokerAnswer> {
    const { subject, serverUrl, authorizationEndpoint, tokenEndpoint } = question;
    try {
      const response = await this.#fetch(this.#url, {
        method: "POST",
        headers: {
          Accept: "application/json",
          Authorization: `Bearer ${subject.reveal()}`,
          "X-Server-Url": serverUrl,
          ...(authorizationEndpoint && { "X-Authorization-Endpoint": authorizationEndpoint }),
          ...(tokenEndpoint && { "X-Token-Endpoint": tokenEndpoint }),
        },
        maxBytes: maxResponseBytes,
        timeoutMs: this.#timeoutMs,
        isHeld: true,
        signal,
      });
      return response.status === 200 ? issued(response.body) : this.#refusal(response, subject);
    } catch (error) {
      if (signal.aborted) return { kind: "unavailable", why: "cancelled" };
      if (!(error instanceof ProxyError)) throw error;
      return { kind: "unavailable", why: error.code };
    }
  }

  #refusal({ status, headers, body }: OperatorResponse, subject: Secret): BrokerAnswer {
    // 407 would be read as a word of this proxy about itself.
    if (status < 400 || status > 599 || status === 407)
      return { kind: "unavailable", why: `it answered ${status}` };
    const json = parseStrictJson(body);
    const said = json.kind === "json" ? textOf(objectOf(json.value)["message"]) : undefined;
    const retryAfter = headers["retry-after"];
    return {
      kind: "refused",
      status,
      message: this.#clean(said ?? "", subject) || `the token broker answered ${status}`,
      retryAfter: /^\d{1,6}$/.test(retryAfter ?? "") ? retryAfter : undefined,
    };
  }

  /** In one line, without the caller's token and without the broker's own address. */
  #clean(text: string, subject: Secret): string {
    const line = text
      .replaceAll(subject.reveal(), "[token]")
      .replace(/[\p{Cc}\p{Cf}\s]+/gu, " ")
      .split(" ")
      .map((word) => (this.#isPlace(word.toLowerCase()) ? "[broker]" : word))
      .join(" ")
      .trim();
    return bounded(line, maxMessageChars);
  }

  #isPlace(word: string): boolean {
    return this.#places.some((place) => word.includes(place));
  }
}

function issued(body: Buffer): BrokerAnswer {
  const json = parseStrictJson(body);
  const token = json.kind === "json" ? textOf(objectOf(json.value)["token"]) : undefined;
  // What is no b64token (RFC 6750 section 2.1) would be read as something else than one credential.
  return token !== undefined && token.length <= maxTokenChars && /^[\w\-.~+/]+=*$/.test(token)
    ? { kind: "token", token: new Secret(token) }
    : { kind: "unavailable", why: "it answered without a token" };
}
