/** The SVID and the bundles in use, and who wants to hear that they were replaced. */
import type { X509Svid } from "./x509-source.ts";

/** Authorities in PEM, by trust domain. */
export type Bundles = ReadonlyMap<string, readonly string[]>;

/** What is different from before. */
export interface X509Change {
  readonly isOtherSvid: boolean;
  readonly domains: ReadonlySet<string>;
}

/** Holds what a source has accepted last. */
export class HeldX509 {
  readonly #listeners = new Set<() => void>();
  #svid: X509Svid | undefined;
  #bundles: Bundles = new Map();

  get svid(): X509Svid | undefined {
    return this.#svid;
  }

  get bundles(): Bundles {
    return this.#bundles;
  }

  onChange(listener: () => void): () => void {
    // Two listeners may be one function.
    const entry = (): void => listener();
    this.#listeners.add(entry);
    return () => this.#listeners.delete(entry);
  }

  /** Replaces both whole. Where anything is different, `told` hears of it before the listeners do. */
  replace(
    svid: X509Svid | undefined,
    bundles: Map<string, readonly string[]>,
    told: (change: X509Change) => void,
  ): void {
    const isOtherSvid = this.#svid?.certificateChain !== svid?.certificateChain;
    const before = this.#bundles;
    const domains = new Set(
      [...before.keys(), ...bundles.keys()].filter((domain) => !isSame(before, bundles, domain)),
    );
    if (!isOtherSvid && domains.size === 0) return;
    // What has not changed stays the same object: whoever compares sees that.
    for (const [domain, bundle] of before) if (!domains.has(domain)) bundles.set(domain, bundle);
    if (isOtherSvid) this.#svid = svid;
    this.#bundles = bundles;
    told({ isOtherSvid, domains });
    for (const listener of this.#listeners) listener();
  }

  close(): void {
    this.#listeners.clear();
  }
}

function isSame(one: Bundles, other: Bundles, domain: string): boolean {
  return one.get(domain)?.join("") === other.get(domain)?.join("");
}
