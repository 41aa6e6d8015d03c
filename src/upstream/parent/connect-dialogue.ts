/** CONNECT to an HTTP parent (RFC 9110 section 9.3.6): the request, and which responses open a tunnel. */
import type { ErrorCode, ProxyError } from "../../errors.ts";
import type { Dialogue, Step } from "./dialogue.ts";
import { hopFault, basicAuthorization, type ParentProxy } from "./parent-proxy.ts";

/** A longer response head is not accepted. */
const maxHeadBytes = 16 * 1024;
const maxInformational = 8;
const more: Step = { kind: "more" };

/** Asks a parent for a tunnel to an authority. */
export class ConnectDialogue implements Dialogue {
  readonly #parent: ParentProxy;
  readonly #authority: string;
  #informational = 0;

  constructor(parent: ParentProxy, authority: string) {
    this.#parent = parent;
    this.#authority = authority;
  }

  /** It holds neither fields nor credentials of the agent's request. */
  get opening(): Buffer {
    const { credentials } = this.#parent;
    const authorization =
      credentials === undefined
        ? ""
        : `Proxy-Authorization: ${basicAuthorization(credentials)}\r\n`;
    return Buffer.from(
      `CONNECT ${this.#authority} HTTP/1.1\r\nHost: ${this.#authority}\r\n${authorization}\r\n`,
      "latin1",
    );
  }

  step(received: Buffer): Step {
    const end = received.indexOf("\r\n\r\n");
    if (end === -1 ? received.length > maxHeadBytes : end > maxHeadBytes) {
      throw this.#bad(`answered CONNECT with a head of more than ${maxHeadBytes} bytes`);
    }
    if (end === -1) {
      if (!couldBeStatusLine(received)) throw this.#bad("did not answer CONNECT in HTTP");
      return more;
    }
    const used = end + 4;
    const head = received.toString("latin1", 0, end);
    const status = this.#statusOf(head);
    if (status < 200) return this.#interim(status, used);
    if (status < 300) {
      this.#checkTunnel(status, head);
      return { kind: "done", used };
    }
    throw this.#refusal(status);
  }

  closed(): ProxyError {
    return this.#fault("upstream.reset", "closed the connection instead of answering CONNECT");
  }

  late(timeoutMs: number): ProxyError {
    const what = `did not answer CONNECT ${this.#authority} in ${timeoutMs} ms`;
    return this.#fault("upstream.timeout", what);
  }

  #statusOf(head: string): number {
    const match = /^HTTP\/1\.[01] ([1-5]\d\d)(?: [^\r\n]*)?(?:\r\n|$)/.exec(head);
    const lines = head.split("\r\n").slice(1);
    if (match === null || lines.some((line) => !/^[!#$%&'*+\-.^_`|~0-9A-Za-z]+:/.test(line)))
      throw this.#bad("did not answer CONNECT in valid HTTP");
    return Number(match[1]);
  }

  /** Interim responses are skipped, up to a limit. */
  #interim(status: number, used: number): Step {
    this.#informational += 1;
    if (status === 101 || this.#informational > maxInformational)
      throw this.#bad(`answered CONNECT with status ${status}`);
    return { kind: "send", bytes: Buffer.alloc(0), used };
  }

  /**
   * A success has no content whatever it announces (RFC 9110 section 9.3.6), and a Transfer-Encoding is passed over.
   * A length or a page is another matter: that is a captive portal, and its bytes are not the destination's. To pass over
   * the length, as section 9.3.6 has it, would give them to the agent as the first bytes of its destination.
   */
  #checkTunnel(status: number, head: string): void {
    const length = /\r\ncontent-length:[ \t]*(\d+)/i.exec(head)?.[1] ?? "0";
    const isPage = /\r\ncontent-type:[ \t]*text\/html/i.test(head);
    if (!isPage && Number(length) === 0) return;
    const mark = isPage ? "Content-Type: text/html" : `Content-Length: ${length.slice(0, 20)}`;
    throw this.#bad(
      `answered CONNECT with status ${status} and a document (${mark}), not with a tunnel: is a login page in the way?`,
    );
  }

  #refusal(status: number): ProxyError {
    if (status === 407) return authenticationFault(this.#parent);
    const code = status === 504 ? "upstream.timeout" : "upstream.proxy-refused";
    const advice =
      status === 403 && this.#authority.endsWith(":80")
        ? " (many proxies allow CONNECT to port 443 only: set connect_by: name for http_proxy)"
        : "";
    return this.#fault(code, `answered CONNECT ${this.#authority} with status ${status}${advice}`);
  }

  #bad(what: string): ProxyError {
    return this.#fault("upstream.bad-response", what);
  }

  #fault(code: ErrorCode, what: string): ProxyError {
    return hopFault(this.#parent, { hop: "connect", code, what });
  }
}

/** 407 concerns the parent and this proxy alone: its challenge is never forwarded. */
export function authenticationFault(parent: ParentProxy): ProxyError {
  const what =
    parent.credentials === undefined
      ? "asks for credentials (407), and the file has none for it"
      : "does not accept our credentials (407)";
  return hopFault(parent, { hop: "auth", code: "upstream.proxy-refused", what });
}

/** Detected early, so that no time is spent on a server of another protocol. */
function couldBeStatusLine(received: Buffer): boolean {
  const start = received.toString("latin1", 0, 7);
  return "HTTP/1.".startsWith(start);
}
