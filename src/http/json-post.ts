/** One question in JSON to a service that the operator named, and what went wrong in words. */
import { ProxyError } from "../errors.ts";
import type { OperatorFetch } from "./operator-fetch.ts";

/** A question. */
export interface JsonQuestion {
  readonly url: string;
  /** The fields that show who asks; rejects where there is nothing to show, and then nobody is asked. */
  readonly fields: () => Promise<Readonly<Record<string, string>>>;
  readonly body: string;
  readonly timeoutMs: number;
  readonly maxBytes: number;
  readonly signal?: AbortSignal;
}

/** What came back, or what the service did in place of that, as the rest of a sentence. */
export type JsonPost =
  | { readonly kind: "body"; readonly body: Buffer }
  | { readonly kind: "too-long" | "unavailable"; readonly why: string };

/** Asks once. Never rejects; what went wrong is told without the service's own words. */
export async function postJson(fetch: OperatorFetch, question: JsonQuestion): Promise<JsonPost> {
  const { url, fields, body, timeoutMs, maxBytes, signal } = question;
  try {
    const { status, body: answer } = await fetch(url, {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        Accept: "application/json",
        ...(await fields()),
      },
      body,
      timeoutMs: Math.max(1, timeoutMs),
      maxBytes,
      ...(signal === undefined ? {} : { signal }),
    });
    return status < 200 || status > 299
      ? { kind: "unavailable", why: `answered ${status}` }
      : { kind: "body", body: answer };
  } catch (error) {
    if (!(error instanceof ProxyError)) return { kind: "unavailable", why: "cannot be asked" };
    return error.code === "upstream.response-too-large"
      ? { kind: "too-long", why: "gave an answer that is too long" }
      : {
          kind: "unavailable",
          // A source of the file that gave no secret is named.
          why: `cannot be asked: ${error.code === "secret.unavailable" ? error.message : error.code}`,
        };
  }
}
