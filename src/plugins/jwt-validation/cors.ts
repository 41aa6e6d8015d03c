/** The CORS protocol of the Fetch standard: preflights, and the fields by which browsers let pages read responses. */
import { durationMs } from "../../duration.ts";
import type { HeaderList } from "../../http/headers.ts";
import {
  type Decision,
  deny,
  exempt,
  type ReplyFields,
  type RequestContext,
  respond,
} from "../../pipeline/plugin.ts";
import type { CorsConfig } from "./cors-config.ts";

/** What decides which response it is. */
const varies = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers";

/** A browser's question before a request of another origin; with a credential of its own it is none. */
export function isPreflight({ method, headers }: RequestContext): boolean {
  return (
    method === "OPTIONS" &&
    headers.get("origin") !== undefined &&
    headers.get("access-control-request-method") !== undefined &&
    headers.get("authorization") === undefined
  );
}

/** The block `cors`. */
export class Cors {
  readonly #config: CorsConfig;
  readonly #origins: ReadonlySet<string>;
  readonly #methods: ReadonlySet<string>;
  readonly #fields: ReadonlySet<string>;

  constructor(config: CorsConfig) {
    this.#config = config;
    this.#origins = new Set(config.allowed_origins);
    this.#methods = new Set(config.allowed_methods);
    this.#fields = new Set(config.allowed_headers.map((name) => name.toLowerCase()));
  }

  /** Whether the fields of the agent's responses are replaced. */
  get isOwn(): boolean {
    return this.#config.preflight === "answer";
  }

  /** The decision about a preflight; for other requests nothing. From here on the refusals have the fields, too. */
  judge(context: RequestContext): Decision | undefined {
    const fields = this.#fieldsFor(context);
    context.setReplyFields(fields);
    if (!isPreflight(context)) return undefined;
    const problem = this.#problemOf(context);
    if (problem !== undefined) {
      const message = `the preflight is refused: ${problem}`;
      return deny("cors_refused", { code: "policy.forbidden", message });
    }
    if (!this.isOwn) return exempt("cors_preflight");
    const { allowed_methods: methods, allowed_headers: names, max_age: age } = this.#config;
    const headers = {
      ...fields,
      "Access-Control-Allow-Methods": methods.join(", "),
      ...(names.length === 0 ? {} : { "Access-Control-Allow-Headers": names.join(", ") }),
      "Access-Control-Max-Age": String(Math.floor(durationMs(age) / 1_000)),
      Vary: varies,
    };
    return respond("cors_preflight", { status: 204, headers, body: Buffer.alloc(0) });
  }

  /** Gives the agent's response the fields in place of its own. */
  apply(context: RequestContext, headers: HeaderList): void {
    const own = headers.raw.filter((name, at) => at % 2 === 0 && /^access-control-/i.test(name));
    for (const name of own) headers.delete(name);
    for (const [name, value] of Object.entries(this.#fieldsFor(context))) {
      if (name !== "Vary") headers.set(name, String(value));
      else if (!/(?:^|,)\s*(?:\*|origin)\s*(?:,|$)/i.test(headers.get("vary") ?? ""))
        headers.append(name, String(value));
    }
  }

  #fieldsFor({ headers }: RequestContext): ReplyFields {
    const origin = headers.get("origin");
    const isAny = this.#origins.has("*");
    const vary = isAny ? {} : { Vary: "Origin" };
    if (origin === undefined || !this.#allows(origin)) return vary;
    const { exposed_headers: exposed, allow_credentials: credentials } = this.#config;
    return {
      "Access-Control-Allow-Origin": isAny ? "*" : origin,
      ...(credentials ? { "Access-Control-Allow-Credentials": "true" } : {}),
      ...(exposed.length === 0 ? {} : { "Access-Control-Expose-Headers": exposed.join(", ") }),
      ...vary,
    };
  }

  #allows(origin: string): boolean {
    return this.#origins.has("*") || this.#origins.has(origin);
  }

  #problemOf({ headers }: RequestContext): string | undefined {
    if (!this.#allows(headers.get("origin") ?? ""))
      return "its origin is not in cors.allowed_origins";
    if (!this.#methods.has(headers.get("access-control-request-method") ?? ""))
      return "its method is not in cors.allowed_methods";
    const asked = headers.get("access-control-request-headers") ?? "";
    const names = asked.split(",").map((name) => name.trim().toLowerCase());
    const isKnown = names.every((name) => name === "" || this.#fields.has(name));
    return isKnown ? undefined : "one of its fields is not in cors.allowed_headers";
  }
}
