/** An X.509 identity that a test changes as it likes. */
import { HeldX509 } from "../../src/spiffe/held-x509.ts";
import type { X509Source, X509Svid } from "../../src/spiffe/x509-source.ts";
import { readBundle, readSvid } from "../../src/spiffe/x509-svid.ts";
import type { SpiffeAuthority, TestSvid } from "./spiffe-authority.ts";

interface Identity {
  readonly svid: TestSvid | undefined;
  readonly authorities: readonly SpiffeAuthority[];
}

/** Authorities of one trust domain are one bundle. */
export class HeldIdentity implements X509Source {
  readonly #held = new HeldX509();
  #identity: Identity;

  constructor(svid: TestSvid | undefined, authorities: readonly SpiffeAuthority[]) {
    this.#identity = { svid, authorities };
    this.update({});
  }

  /** What is not given stays. */
  update(change: Partial<Identity>): void {
    this.#identity = { ...this.#identity, ...change };
    const { svid, authorities } = this.#identity;
    const bundles = new Map<string, readonly string[]>();
    for (const domain of new Set(authorities.map(({ trustDomain }) => trustDomain))) {
      const members = authorities.filter(({ trustDomain }) => trustDomain === domain);
      const bundle = readBundle(Buffer.concat(members.map(({ caDer }) => caDer)));
      if (typeof bundle === "string") throw new Error(bundle);
      bundles.set(domain, bundle);
    }
    this.#held.replace(svid === undefined ? undefined : read(svid), bundles, () => undefined);
  }

  current(): X509Svid | undefined {
    return this.#held.svid;
  }

  bundle(trustDomain: string): readonly string[] | undefined {
    return this.#held.bundles.get(trustDomain);
  }

  trustDomains(): readonly string[] {
    return [...this.#held.bundles.keys()];
  }

  notReady(): string | undefined {
    return this.#held.svid === undefined ? "nothing to show" : undefined;
  }

  onChange(listener: () => void): () => void {
    return this.#held.onChange(listener);
  }
}

function read({ certDer, keyDer }: TestSvid): X509Svid {
  const svid = readSvid({ certificates: certDer, privateKey: keyDer }, Date.now());
  if (typeof svid === "string") throw new Error(svid);
  return svid;
}
