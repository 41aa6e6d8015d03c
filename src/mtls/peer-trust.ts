/** Which peers are trusted: by the bundle of their trust domain, and by the list of the file. */
import { X509Certificate } from "node:crypto";
import { createSecureContext, type SecureContext, type SecureContextOptions } from "node:tls";
import { BoundedMap } from "../bounded-map.ts";
import { messageOf } from "../errors.ts";
import type { AllowedIds } from "../spiffe/allowed-ids.ts";
import { spiffeIdOf } from "../spiffe/certificate.ts";
import type { SpiffeId } from "../spiffe/spiffe-id.ts";
import { anchorOf } from "../spiffe/trust-anchor.ts";
import type { X509Source } from "../spiffe/x509-source.ts";
import { hasSigned } from "../spiffe/x509-svid.ts";

/** Why a peer is refused, or cut off later. */
export type PeerReason =
  /** We have nothing to show, and so nobody is spoken to. */
  | "no-svid"
  /** It is not TLS where only TLS is served. */
  | "plain"
  /** It says nothing. */
  | "silent"
  | "no-certificate"
  /** Nothing that is trusted has signed its certificate. */
  | "untrusted"
  | "expired"
  /** Its certificate is no X.509-SVID. */
  | "not-spiffe"
  /** It is not on the list of the file. */
  | "not-allowed"
  /** No common protocol, a broken message, or an end before the end. */
  | "handshake";

/** A refusal with its words. */
export interface PeerRefusal {
  readonly kind: "refused";
  readonly reason: PeerReason;
  readonly message: string;
  /** Whose certificate it was, where that was found out. */
  readonly peer?: string;
}

/** A peer whose certificate was verified. */
export interface VerifiedPeer {
  readonly kind: "peer";
  readonly id: SpiffeId;
  readonly leaf: X509Certificate;
  /** The authorities of its trust domain that it was verified by. */
  readonly bundle: readonly string[];
}

/** What handshakes are made with while nothing changes. */
export interface PeerContext {
  readonly kind: "context";
  readonly tls: SecureContextOptions;
  /** Made of `tls`. */
  readonly secure: SecureContext;
  readonly bundles: ReadonlyMap<string, readonly string[]>;
}

/** What OpenSSL says of a certificate that it does not accept, as Node names it. */
const expiredCodes: ReadonlySet<string> = new Set(["CERT_HAS_EXPIRED", "CERT_NOT_YET_VALID"]);
/** Its other objections; a client gets them as the code of an error. */
const certificateCodes =
  /^(?:UNSPECIFIED|(?:UNABLE_TO|DEPTH_ZERO|SELF_SIGNED|CERT_|INVALID_|PATH_LENGTH).*)$/;
const noCertificate = "ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE";

/** What a generation of the file says of peers, with the identities as of now. */
export class PeerTrust {
  readonly source: X509Source;
  readonly #allowed: AllowedIds;
  /** The key of the list. */
  readonly #listKey: string;
  readonly #parsed = new WeakMap<readonly string[], Authorities>();

  constructor(source: X509Source, allowed: AllowedIds, listKey: string) {
    this.source = source;
    this.#allowed = allowed;
    this.#listKey = listKey;
  }

  /** What to show and whom to trust as of now. */
  context(): PeerContext | PeerRefusal {
    const svid = this.source.current();
    if (svid === undefined) {
      const why = this.source.notReady() ?? "there is none";
      return refusal("no-svid", `there is no X.509-SVID to show: ${why}`);
    }
    const bundles = new Map(
      this.source.trustDomains().map((domain) => [domain, this.source.bundle(domain) ?? []]),
    );
    const tls = {
      cert: svid.certificateChain,
      key: svid.privateKey.reveal(),
      ca: authoritiesOf(bundles),
      minVersion: "TLSv1.3",
      // An authority of a bundle is trusted whether or not it is its own issuer.
      allowPartialTrustChain: true,
    } as const;
    try {
      return { kind: "context", tls, secure: createSecureContext(tls), bundles };
    } catch (error) {
      // OpenSSL has demands of its own, such as on the length of keys.
      const why = messageOf(error);
      return refusal("no-svid", `the X.509-SVID and its bundles cannot be used: ${why}`);
    }
  }

  /** The peer behind a certificate that OpenSSL verified by the context, or why it is refused. */
  judge(leaf: X509Certificate | undefined, { bundles }: PeerContext): VerifiedPeer | PeerRefusal {
    if (leaf === undefined) return refusal("no-certificate", "the peer shows no certificate");
    const id = spiffeIdOf(leaf.raw);
    if (typeof id === "string") return refusal("not-spiffe", id);
    const bundle = bundles.get(id.trustDomain);
    if (bundle === undefined) return strange(id);
    const peer = { kind: "peer", id, leaf, bundle } as const;
    // The context is older than the handshake: what was taken back meanwhile counts.
    return this.objection(peer) ?? peer;
  }

  /** Why a peer that was verified once would be refused now. Its time is that of its handshake. */
  objection({ id, leaf, bundle }: VerifiedPeer): PeerRefusal | undefined {
    const peer = id.text;
    if (!this.#allowed.allows(id)) {
      return refusal("not-allowed", `${peer} is not in ${this.#listKey}`, peer);
    }
    const current = this.source.bundle(id.trustDomain);
    if (current === undefined) return strange(id);
    if (current === bundle || bundle.every((one) => current.includes(one))) return undefined;
    if (this.#authorities(current).have(leaf)) return undefined;
    // Its intermediates are not known here: whether another authority leads to it shows in a new handshake.
    const message = `an authority that may have led to ${peer} is no longer in the bundle of ${id.trustDomain}`;
    return refusal("untrusted", message, peer);
  }

  #authorities(bundle: readonly string[]): Authorities {
    const known = this.#parsed.get(bundle);
    if (known !== undefined) return known;
    const parsed = new Authorities(bundle);
    this.#parsed.set(bundle, parsed);
    return parsed;
  }
}

/** Certificates that are remembered; peers that hold thousands of connections have few of them. */
const maxRemembered = 1_024;

/** The authorities of a bundle, and what they have signed. */
class Authorities {
  readonly #certificates: readonly X509Certificate[];
  readonly #signed = new BoundedMap<string, boolean>(maxRemembered);

  constructor(bundle: readonly string[]) {
    this.#certificates = bundle.map((pem) => new X509Certificate(pem));
  }

  /** Whether one of them has signed it, without another between them. */
  have(leaf: X509Certificate): boolean {
    return this.#signed.getOrMake(leaf.fingerprint256, () =>
      this.#certificates.some((one) => hasSigned(one, leaf)),
    );
  }
}

/** Why a handshake failed, by its error and by what OpenSSL said of the peer's certificate. */
export function handshakeRefusal(
  error: unknown,
  { authorizationError: verdict }: { readonly authorizationError?: unknown },
): PeerRefusal {
  const name = typeof verdict === "string" ? verdict : codeOf(error);
  if (name === noCertificate) return refusal("no-certificate", "the peer shows no certificate");
  if (expiredCodes.has(name))
    return refusal("expired", `the certificate of the peer is out of its time: ${name}`);
  if (typeof verdict !== "string" && !certificateCodes.test(name))
    return refusal("handshake", `the TLS handshake failed: ${name}`);
  const why = name === "UNSPECIFIED" ? "its URI is not of its authority's trust domain" : name;
  return refusal("untrusted", `no bundle leads to the certificate of the peer: ${why}`);
}

function codeOf(error: unknown): string {
  const code: unknown = error instanceof Error && "code" in error ? error.code : undefined;
  return typeof code === "string" ? code : messageOf(error);
}

function strange({ trustDomain, text }: SpiffeId): PeerRefusal {
  return refusal("untrusted", `the trust domain ${trustDomain} has no bundle`, text);
}

/** One refusal. */
export function refusal(reason: PeerReason, message: string, peer?: string): PeerRefusal {
  return { kind: "refused", reason, message, ...(peer === undefined ? {} : { peer }) };
}

/** With several trust domains each authority is held to its own; one that cannot be is not trusted. */
function authoritiesOf(bundles: PeerContext["bundles"]): string[] {
  const [only, ...more] = bundles;
  if (only !== undefined && more.length === 0) return [...only[1]];
  return [...bundles].flatMap(([domain, bundle]) =>
    bundle.flatMap((pem) => {
      try {
        return [anchorOf(pem, domain)];
      } catch {
        return [];
      }
    }),
  );
}
