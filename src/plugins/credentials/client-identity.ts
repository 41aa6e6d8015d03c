/** The client that this proxy is at the token endpoint: its id and its proof, inline or from files that rotate. */
import type { ClientAuthentication } from "../../oauth/client-authentication.ts";
import { credentialText } from "../../files/watched-file.ts";
import {
  type ClientIdentityConfig,
  defaultClientIdFile,
  namesItself,
} from "./client-identity-config.ts";
import { type Proof, type ProofSource, proofSources } from "./client-proof.ts";
import { CredentialFiles, type Current, type IdentityDeps } from "./credential-files.ts";

/** Hands out the client's id and proof as they are at the moment. */
export class ClientIdentity {
  readonly #config: ClientIdentityConfig;
  readonly #files: CredentialFiles;
  readonly #id: Current<string>;
  readonly #source: ProofSource;
  readonly #isIdOptional: boolean;

  /** Throws {@link PluginConfigError} for a file that is there and holds no usable credential. */
  constructor(config: ClientIdentityConfig, deps: IdentityDeps) {
    this.#config = config;
    this.#files = new CredentialFiles(deps);
    const { client_id: id, client_id_file: idFile = defaultClientIdFile } = config;
    this.#isIdOptional =
      namesItself(config) && id === undefined && config.client_id_file === undefined;
    this.#id =
      id === undefined
        ? this.#files.file(idFile, credentialText, this.#isIdOptional)
        : { problem: undefined, current: () => id };
    this.#source = proofSources[config.type](config, this.#files, deps);
  }

  /** True, or why there are no credentials to show yet. */
  ready(): true | string {
    const hasId = this.#isIdOptional || this.#id.current() !== undefined;
    if (hasId && this.#source.current() !== undefined) return true;
    return `credentials pending (${this.#files.problem() ?? "not read yet"})`;
  }

  /** The id, for cache keys. */
  clientId(): string | undefined {
    return this.#id.current();
  }

  /** The credential as it is now, to be compared by identity only: a file that was read again gives another. */
  credential(): object | undefined {
    return this.#proof()?.credential;
  }

  /** Id and proof; undefined while there are none, nor any that the call itself could fetch. */
  authentication(): ClientAuthentication | undefined {
    const id = this.#id.current();
    const proof = this.#proof();
    if (proof === undefined || (id === undefined && !this.#isIdOptional)) return undefined;
    return proof.show(
      id ?? "",
      id === undefined || !this.#config.send_client_id ? {} : { clientId: id },
    );
  }

  #proof(): Proof | undefined {
    return this.#source.current() ?? this.#source.fetched;
  }
}
