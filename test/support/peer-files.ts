/** The files of a workload's X.509 identity, and what a proxy's file says of them. */
import { mkdtemp, rename, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Settings } from "./program.ts";
import type { SpiffeAuthority, TestSvid } from "./spiffe-authority.ts";

/** In a directory of its own. */
export class PeerFiles {
  readonly directory: string;
  readonly #federated = new Map<string, string>();

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async write(
    svid: Pick<TestSvid, "cert" | "key">,
    authorities: readonly SpiffeAuthority[],
    federated: readonly SpiffeAuthority[] = [],
  ): Promise<PeerFiles> {
    const files = new PeerFiles(await mkdtemp(join(tmpdir(), "authbridge-peer-")));
    await files.bundle(authorities);
    await files.svid(svid);
    for (const authority of federated) {
      const path = join(files.directory, `${authority.trustDomain}.pem`);
      await writeFile(path, authority.caPem);
      files.#federated.set(authority.trustDomain, path);
    }
    return files;
  }

  /** The `spiffe` block. */
  get spiffe(): Settings {
    return {
      mirror_files: false,
      x509_files: {
        cert_file: this.#path("svid.pem"),
        key_file: this.#path("svid_key.pem"),
        bundle_file: this.#path("bundle.pem"),
        ...(this.#federated.size === 0
          ? {}
          : { federated_bundle_files: Object.fromEntries(this.#federated) }),
      },
    };
  }

  async svid({ cert, key }: Pick<TestSvid, "cert" | "key">): Promise<void> {
    await this.#replace("svid_key.pem", key);
    await this.#replace("svid.pem", cert);
  }

  async bundle(authorities: readonly SpiffeAuthority[]): Promise<void> {
    await this.#replace("bundle.pem", authorities.map(({ caPem }) => caPem).join(""));
  }

  #path(name: string): string {
    return join(this.directory, name);
  }

  /** In one step, as those who rotate files do. */
  async #replace(name: string, text: string): Promise<void> {
    await writeFile(this.#path(`.${name}`), text);
    await rename(this.#path(`.${name}`), this.#path(name));
  }
}
