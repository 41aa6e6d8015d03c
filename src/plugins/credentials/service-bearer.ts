/** The bearer token for a service that the operator named: of the configuration, of a file that is read at every call, or of a source. */
import { fileProblem, readSmallFile } from "../../files/watched-file.ts";
import { ProxyError } from "../../errors.ts";
import { Secret } from "../../secret.ts";
import type { SecretSource } from "../../secrets/secret-source.ts";
import type { SecretValue } from "./secret-config.ts";

const maxBearerBytes = 65_536;

/** Where the token comes from. */
export interface ServiceBearerOptions {
  readonly token: SecretValue | undefined;
  readonly file: string | undefined;
  /** The key of the file, for faults. */
  readonly fileKey: string;
  /** Where `token` names one. */
  readonly source: SecretSource | undefined;
}

/** One token, which may change. */
export class ServiceBearer {
  readonly #options: ServiceBearerOptions;
  readonly #token: Secret | undefined;
  /** As it was last read: held, it is known to whoever looks for it in traffic. */
  #read: Secret | undefined;

  constructor(options: ServiceBearerOptions) {
    this.#options = options;
    this.#token = typeof options.token === "string" ? new Secret(options.token) : undefined;
    // One that cannot be read now is a fault of the call that needs it.
    if (options.file !== undefined) void this.#current().catch(() => undefined);
  }

  /** The field that shows the token; nothing where the configuration names none. Rejects where the file holds none. */
  readonly fields = async (signal?: AbortSignal): Promise<Readonly<Record<string, string>>> => {
    const token = await this.#current(signal);
    return token === undefined ? {} : { Authorization: `Bearer ${token.reveal()}` };
  };

  async #current(signal?: AbortSignal): Promise<Secret | undefined> {
    const { file, fileKey, source } = this.#options;
    if (source !== undefined) {
      const { value } = await source.current(signal);
      sendable(value.reveal(), source.name);
      return value;
    }
    if (file === undefined) return this.#token;
    const text = sendable(textOf(file, fileKey), fileKey);
    if (this.#read?.reveal() !== text) this.#read = new Secret(text);
    return this.#read;
  }
}

function textOf(file: string, fileKey: string): string {
  try {
    return readSmallFile(file, maxBearerBytes).trim();
  } catch (error) {
    const message = `${fileKey}: ${fileProblem(file, error)}`;
    throw new ProxyError("upstream.refused", message, { cause: error });
  }
}

/** The text, if a field can have it. */
function sendable(text: string, what: string): string {
  if (/^[\x21-\x7e]+$/.test(text)) return text;
  throw new ProxyError("upstream.refused", `${what} holds no token`);
}
