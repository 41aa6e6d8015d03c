/** SOCKS5 (RFC 1928) with user name and password (RFC 1929), asking for names or addresses. */
import { isIP } from "node:net";
import type { ErrorCode, ProxyError } from "../../errors.ts";
import { parseAddress } from "../../net/address.ts";
import type { Dialogue, Step } from "./dialogue.ts";
import { hopFault, type ParentProxy } from "./parent-proxy.ts";

const version = 5;
const noAuthentication = 0;
const userPassword = 2;
const more: Step = { kind: "more" };

/** RFC 1928 section 6. */
const replies: readonly string[] = [
  "succeeded",
  "general failure",
  "connection not allowed by its rules",
  "network unreachable",
  "host unreachable",
  "connection refused",
  "TTL expired",
  "command not supported",
  "address type not supported",
];

/** Asks a SOCKS5 parent for a connection to a host (name or address) and port. */
export class Socks5Dialogue implements Dialogue {
  readonly #parent: ParentProxy;
  readonly #host: string;
  readonly #port: number;
  #state: "method" | "credentials" | "reply" = "method";

  constructor(parent: ParentProxy, host: string, port: number) {
    this.#parent = parent;
    this.#host = host;
    this.#port = port;
  }

  get opening(): Buffer {
    const methods =
      this.#parent.credentials === undefined
        ? [noAuthentication]
        : [noAuthentication, userPassword];
    return Buffer.from([version, methods.length, ...methods]);
  }

  step(received: Buffer): Step {
    if (received.length < 2) return more;
    switch (this.#state) {
      case "method":
        return this.#onMethod(received);
      case "credentials":
        return this.#onCredentials(received);
      case "reply":
        return this.#onReply(received);
    }
  }

  closed(): ProxyError {
    return this.#fault("upstream.reset", "closed the connection in the SOCKS handshake");
  }

  late(timeoutMs: number): ProxyError {
    const what = `did not answer in SOCKS for ${this.#host}:${this.#port} in ${timeoutMs} ms`;
    return this.#fault("upstream.timeout", what);
  }

  #onMethod(received: Buffer): Step {
    if (received[0] !== version)
      throw this.#fault("upstream.bad-response", "does not speak SOCKS5");
    const method = received[1];
    const { credentials } = this.#parent;
    if (method === noAuthentication) return this.#request(2);
    if (method !== userPassword || credentials === undefined) {
      const what = "asks for credentials that the file does not have for it";
      throw hopFault(this.#parent, { hop: "auth", code: "upstream.proxy-refused", what });
    }
    this.#state = "credentials";
    const user = Buffer.from(credentials.username, "utf8");
    const password = Buffer.from(credentials.password.reveal(), "utf8");
    const bytes = [Buffer.of(1, user.length), user, Buffer.of(password.length), password];
    return { kind: "send", bytes: Buffer.concat(bytes), used: 2 };
  }

  #onCredentials(received: Buffer): Step {
    if (received[1] === 0) return this.#request(2);
    const what = "does not accept our credentials";
    throw hopFault(this.#parent, { hop: "auth", code: "upstream.proxy-refused", what });
  }

  #request(used: number): Step {
    this.#state = "reply";
    const port = Buffer.of(this.#port >> 8, this.#port & 0xff);
    const bytes = Buffer.concat([Buffer.of(version, 1, 0), this.#address(), port]);
    return { kind: "send", bytes, used };
  }

  #address(): Buffer {
    const address = isIP(this.#host) === 0 ? undefined : parseAddress(this.#host);
    if (address === undefined) {
      const name = Buffer.from(this.#host, "latin1");
      return Buffer.concat([Buffer.of(3, name.length), name]);
    }
    return Buffer.concat([Buffer.of(address.version === 4 ? 1 : 4), address.bytes]);
  }

  #onReply(received: Buffer): Step {
    const code = received[1] ?? 0;
    if (received[0] !== version)
      throw this.#fault("upstream.bad-response", "does not speak SOCKS5");
    if (code !== 0) {
      const why = replies[code] ?? `reply ${code}`;
      const what = `refused a connection to ${this.#host}:${this.#port}: ${why}`;
      throw this.#fault("upstream.proxy-refused", what);
    }
    // Version, reply, reserved, type; the bound address, which nobody needs; two bytes of port.
    const [, , , type, nameLength] = received;
    if (type === undefined || nameLength === undefined) return more;
    const length = type === 1 ? 4 : type === 4 ? 16 : type === 3 ? 1 + nameLength : -1;
    if (length === -1) throw this.#fault("upstream.bad-response", "does not speak SOCKS5");
    const used = 4 + length + 2;
    return received.length < used ? more : { kind: "done", used };
  }

  #fault(code: ErrorCode, what: string): ProxyError {
    return hopFault(this.#parent, { hop: "connect", code, what });
  }
}
