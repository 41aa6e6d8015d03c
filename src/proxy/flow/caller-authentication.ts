/** Who a client of the shared forward proxy is: by its certificate, or by its proxy credentials (RFC 9110 section 11.7). */
import { createHash, timingSafeEqual } from "node:crypto";
import type { Socket } from "node:net";
import { TLSSocket } from "node:tls";
import { ProxyError } from "../../errors.ts";

/** The callers that the operator named. */
export interface CallerDirectory {
  /** SHA-256 of the caller's password; undefined for a name without one. */
  passwordDigest(name: string): Buffer | undefined;
  /** The caller whose certificate has this URI or DNS name. */
  byCertificateName(name: string): string | undefined;
  /** Whether a caller of this name could still prove itself. */
  has(name: string): boolean;
}

/** A Proxy-Authorization field, or a name with a password. */
export type CallerCredentials = string | readonly [name: string, password: string] | undefined;

/** Compared with when there is no such caller, so that timing does not reveal which names exist. */
const nobody = Buffer.alloc(32);
/** A name and a password of 255 bytes each, in Base64. */
const maxCredentials = 1_024;

/** Checks callers of one generation. */
export class CallerAuthentication {
  readonly #directory: CallerDirectory;
  readonly #challenge: string;

  constructor(directory: CallerDirectory, realm: string) {
    this.#directory = directory;
    this.#challenge = `Basic realm="${realm}", charset="UTF-8"`;
  }

  /**
   * The caller's name.
   *
   * A verified certificate identifies the connection; a client without one, or with one that names no caller, needs
   * credentials. Throws ProxyError `auth.caller-unknown` (407), which never says which half was wrong.
   */
  authenticate(socket: Socket, credentials: CallerCredentials): string {
    const byCertificate = this.#byCertificate(socket);
    if (byCertificate !== undefined) return byCertificate;
    if (credentials === undefined) throw this.#refusal("the forward proxy wants credentials");
    const [name, password] =
      (typeof credentials === "string" ? decodeBasic(credentials) : credentials) ?? [];
    if (name === undefined || password === undefined) {
      throw this.#refusal("Proxy-Authorization is not Basic with a name and a password");
    }
    const known = this.#directory.passwordDigest(name);
    const given = createHash("sha256").update(password).digest();
    if (!timingSafeEqual(given, known ?? nobody) || known === undefined) {
      throw this.#refusal("the name or the password is wrong");
    }
    return name;
  }

  /** Whether a connection of this caller may continue; one without a name may not. */
  knows(caller: string | undefined): boolean {
    return caller !== undefined && this.#directory.has(caller);
  }

  #byCertificate(socket: Socket): string | undefined {
    if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
    for (const name of alternativeNames(socket.getPeerCertificate().subjectaltname)) {
      const caller = this.#directory.byCertificateName(name);
      if (caller !== undefined) return caller;
    }
    return undefined;
  }

  #refusal(message: string): ProxyError {
    return new ProxyError("auth.caller-unknown", `${message} (callers)`, {
      headers: { "Proxy-Authenticate": this.#challenge },
    });
  }
}

function decodeBasic(credentials: string): readonly [string, string] | undefined {
  const [, encoded = ""] = /^basic +([\w+/-]+={0,2})$/i.exec(credentials.trim()) ?? [];
  if (encoded === "" || encoded.length > maxCredentials) return undefined;
  const text = Buffer.from(encoded, "base64").toString("utf8");
  const colon = text.indexOf(":");
  return colon < 1 ? undefined : [text.slice(0, colon), text.slice(colon + 1)];
}

/** The URI and DNS names as Node prints them; quoted names are skipped, because no operator would write them. */
function alternativeNames(printed: string | undefined): readonly string[] {
  if (printed === undefined || printed.includes('"')) return [];
  return printed.split(", ").flatMap((item) => /^(?:URI|DNS):(.+)$/.exec(item)?.[1] ?? []);
}
