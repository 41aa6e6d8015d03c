/** The X.509 identity of this process and what it trusts, as of now; wherever they come from. */
import type { Secret } from "../secret.ts";

/** One X.509-SVID that was checked: its single URI is `spiffeId`, its key is its own, it has not expired. */
export interface X509Svid {
  readonly spiffeId: string;
  /** Without `spiffe://`, such as `example.org`. */
  readonly trustDomain: string;
  /** The SVID first, then its intermediates, in PEM. */
  readonly certificateChain: string;
  /** The same certificates in DER, in the same order; never empty. */
  readonly certificates: readonly Buffer[];
  /** PKCS#8 in PEM. */
  readonly privateKey: Secret;
  /** Milliseconds since the epoch. */
  readonly notBefore: number;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

/**
 * Hands out what to show and whom to trust, and says when that changes.
 *
 * Nothing is dialled or read before the first call of any of its methods. Values are replaced whole, never changed:
 * another SVID is another object, and so is another bundle.
 */
export interface X509Source {
  /** The SVID to show; undefined while there is none, or when the last one has expired. */
  current(): X509Svid | undefined;
  /** The authorities of a trust domain, one certificate in PEM each; undefined for a domain that is not trusted. */
  bundle(trustDomain: string): readonly string[] | undefined;
  /** The trust domains that have a bundle: the own one and those that it is federated with. */
  trustDomains(): readonly string[];
  /** Why there is nothing to show, in words for an operator; undefined when there is. */
  notReady(): string | undefined;
  /** Calls back after the SVID or a bundle has changed, until the returned function is called. */
  onChange(listener: () => void): () => void;
}
