/** The bearer token for a service that the operator named: of the configuration, or of a file that is read at every call. */
import { readFile } from "node:fs/promises";
import { ProxyError } from "../../errors.ts";
import { Secret } from "../../secret.ts";

const maxBearerBytes = 65_536;

/** Where the token comes from. */
export interface ServiceBearerOptions {
  readonly token: string | undefined;
  readonly file: string | undefined;
  /** The key of the file, for faults. */
  readonly fileKey: string;
}

/** One token, which may change. */
export class ServiceBearer {
  readonly #options: ServiceBearerOptions;
  readonly #token: Secret | undefined;
  /** As it was last read: held, it is known to whoever looks for it in traffic. */
  #read: Secret | undefined;

  constructor(options: ServiceBearerOptions) {
    this.#options = options;
    this.#token = options.token === undefined ? undefined : new Secret(options.token);
    // One that cannot be read now is a fault of the call that needs it.
    void this.#current().catch(() => undefined);
  }

  /** The field that shows the token; nothing where the configuration names none. Rejects where the file holds none. */
  readonly fields = async (): Promise<Readonly<Record<string, string>>> => {
    const token = await this.#current();
    return token === undefined ? {} : { Authorization: `Bearer ${token.reveal()}` };
  };

  async #current(): Promise<Secret | undefined> {
    const { file, fileKey } = this.#options;
    if (file === undefined) return this.#token;
    const bytes = await readFile(file);
    const text = bytes.length > maxBearerBytes ? "" : bytes.toString("utf8").trim();
    if (!/^[\x21-\x7e]+$/.test(text)) {
      throw new ProxyError("upstream.refused", `${fileKey} holds no token`);
    }
    if (this.#read?.reveal() !== text) this.#read = new Secret(text);
    return this.#read;
  }
}
