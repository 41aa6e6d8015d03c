/** Plain requests to a parent that forwards them: which of its responses are its own. */
import type net from "node:net";
import { ProxyError } from "../errors.ts";
import { hasField } from "../http/headers.ts";
import type { AbortSource } from "../net/abort-source.ts";
import type { Destination } from "../net/destination.ts";
import { authenticationFault } from "./parent/connect-dialogue.ts";
import { hopFault, basicAuthorization, type ParentProxy } from "./parent/parent-proxy.ts";
import { ClientFault } from "../wire/client-fault.ts";
import { MalformedMessage } from "../wire/malformed.ts";
import type { AbsoluteForm } from "./upstream.ts";

/** One parent as the pools of connections see it. */
export class ParentAbsoluteForm implements AbsoluteForm {
  readonly #parent: ParentProxy;
  readonly #dial: (signal: AbortSource) => Promise<net.Socket>;

  constructor(parent: ParentProxy, dial: (signal: AbortSource) => Promise<net.Socket>) {
    this.#parent = parent;
    this.#dial = dial;
  }

  get label(): string {
    return this.#parent.label;
  }

  fields(): string[] {
    const { credentials } = this.#parent;
    return credentials === undefined
      ? []
      : ["Proxy-Authorization", basicAuthorization(credentials)];
  }

  connect(signal: AbortSource): Promise<net.Socket> {
    return this.#dial(signal);
  }

  fault(error: Error): Error {
    if (error instanceof ProxyError) return error;
    if (error instanceof ClientFault && error.kind === "response-timeout") {
      return hopFault(this.#parent, {
        hop: "http",
        code: "upstream.timeout",
        what: "did not answer in time (limits.response_timeout)",
        cause: error,
      });
    }
    if (error instanceof MalformedMessage) {
      const what = "did not answer in valid HTTP";
      return hopFault(this.#parent, {
        hop: "http",
        code: "upstream.bad-response",
        what,
        cause: error,
      });
    }
    if (error instanceof ClientFault && error.kind === "closed") {
      const what = "closed the connection before its answer was whole";
      return hopFault(this.#parent, { hop: "http", code: "upstream.reset", what, cause: error });
    }
    return error;
  }

  refusal(status: number, headers: readonly string[]): ProxyError | undefined {
    if (status === 407) return authenticationFault(this.#parent);
    // squid marks its own pages with this field; what an origin says passes without it.
    if (status < 400 || !hasField(headers, "x-squid-error")) return undefined;
    const code = status === 504 ? "upstream.timeout" : "upstream.proxy-refused";
    return hopFault(this.#parent, {
      hop: "http",
      code,
      what: `answered with an error of its own, ${status}`,
    });
  }
}

/** The target of a plain request to a parent; `*` is the empty path there (RFC 9112 section 3.2.4). */
export function absoluteTarget(destination: Destination, path: string): string {
  return `http://${destination.hostHeader}${path === "*" ? "" : path}`;
}
