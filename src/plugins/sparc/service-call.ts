/** Calls of a service that judges: a question in JSON, with the operator's bearer token, and what went wrong in words. */
import { ProxyError } from "../../errors.ts";
import type { OperatorFetch } from "../../pipeline/plugin.ts";
import { ServiceBearer, type ServiceBearerOptions } from "../credentials/service-bearer.ts";

/** Where a service is and what it wants to see. */
export interface ServiceOptions {
  readonly url: string;
  readonly fetch: OperatorFetch;
  /** What the service is called in messages: `the judge`. */
  readonly name: string;
  readonly bearer: ServiceBearerOptions;
}

/** What came back, or why nothing did. */
export type ServiceResponse =
  | { readonly kind: "body"; readonly body: Buffer }
  | { readonly kind: "unavailable"; readonly why: string };

const maxResponseBytes = 65_536;

/** One service. */
export class ServiceCall {
  readonly #options: ServiceOptions;
  readonly #bearer: ServiceBearer;

  constructor(options: ServiceOptions) {
    this.#options = options;
    this.#bearer = new ServiceBearer(options.bearer);
  }

  /** Never rejects. */
  async post(body: string, timeoutMs: number): Promise<ServiceResponse> {
    const { url, fetch, name } = this.#options;
    const unavailable = (why: string): ServiceResponse => ({ kind: "unavailable", why });
    try {
      const bearer = await this.#bearer.current();
      const response = await fetch(url, {
        method: "POST",
        headers: {
          "Content-Type": "application/json",
          Accept: "application/json",
          ...(bearer === undefined ? {} : { Authorization: `Bearer ${bearer.reveal()}` }),
        },
        body,
        timeoutMs,
        maxBytes: maxResponseBytes,
      });
      if (response.status >= 200 && response.status <= 299) {
        return { kind: "body", body: response.body };
      }
      return unavailable(`${name} answered ${response.status}`);
    } catch (error) {
      if (!(error instanceof ProxyError)) return unavailable(`${name} cannot be asked`);
      return unavailable(`${name} cannot be asked: ${error.code}`);
    }
  }
}
