/** A throw-away authority of a trust domain: X.509-SVIDs as they should be, and as they should not. */
import { generateKeyPairSync, randomBytes } from "node:crypto";
import forge from "node-forge";

const hourMs = 3_600_000;

/** A certificate with its key, in the forms that the Workload API and node:tls take. */
export interface TestSvid {
  readonly spiffeId: string;
  /** The leaf and its intermediates in PEM. */
  readonly cert: string;
  readonly key: string;
  /** The same in DER, one behind the other. */
  readonly certDer: Buffer;
  readonly keyDer: Buffer;
}

/** What to make; by default it is an SVID as SPIRE makes them, for an hour. */
export interface SvidOptions {
  /** In place of the one URI of the SPIFFE ID. */
  readonly uris?: readonly string[];
  readonly dnsNames?: readonly string[];
  readonly notBefore?: Date;
  readonly notAfter?: Date;
  readonly keyUsage?: Readonly<Record<string, boolean>>;
  readonly isAuthority?: boolean;
}

interface Pair {
  readonly publicKey: forge.pki.rsa.PublicKey;
  readonly privateKey: forge.pki.rsa.PrivateKey;
  readonly pem: string;
  readonly der: Buffer;
}

/** node:crypto makes RSA keys in a fraction of the time that node-forge needs. */
function makePair(): Pair {
  const { publicKey, privateKey } = generateKeyPairSync("rsa", { modulusLength: 2_048 });
  const pem = privateKey.export({ type: "pkcs8", format: "pem" }).toString();
  return {
    publicKey: forge.pki.publicKeyFromPem(
      publicKey.export({ type: "spki", format: "pem" }).toString(),
    ),
    privateKey: forge.pki.privateKeyFromPem(pem),
    pem,
    der: privateKey.export({ type: "pkcs8", format: "der" }),
  };
}

function derOf(certificate: forge.pki.Certificate): Buffer {
  return Buffer.from(
    forge.asn1.toDer(forge.pki.certificateToAsn1(certificate)).getBytes(),
    "latin1",
  );
}

/** An authority that signs what it is asked for. */
export class SpiffeAuthority {
  readonly trustDomain: string;
  /** The root, which a bundle holds. */
  readonly caPem: string;
  readonly caDer: Buffer;
  readonly #name: string;
  readonly #pair: Pair;
  readonly #chain: readonly forge.pki.Certificate[];

  private constructor(
    trustDomain: string,
    name: string,
    pair: Pair,
    chain: readonly forge.pki.Certificate[],
    root: forge.pki.Certificate,
  ) {
    this.trustDomain = trustDomain;
    this.#name = name;
    this.#pair = pair;
    this.#chain = chain;
    this.caPem = forge.pki.certificateToPem(root);
    this.caDer = derOf(root);
  }

  /** A new root of a trust domain; two of one name have nothing in common but the name. */
  static create(trustDomain = "example.org"): SpiffeAuthority {
    const pair = makePair();
    const name = `${trustDomain} ${randomBytes(4).toString("hex")}`;
    const root = certify({ name, pair }, { name, pair }, authorityExtensions(trustDomain), {});
    return new SpiffeAuthority(trustDomain, name, pair, [], root);
  }

  /** An authority below this one, whose certificate comes along with what it signs. */
  intermediate(): SpiffeAuthority {
    const pair = makePair();
    const name = `${this.trustDomain} intermediate ${randomBytes(4).toString("hex")}`;
    const issuer = { name: this.#name, pair: this.#pair };
    const made = certify({ name, pair }, issuer, authorityExtensions(this.trustDomain), {});
    const root = forge.pki.certificateFromPem(this.caPem);
    return new SpiffeAuthority(this.trustDomain, name, pair, [made, ...this.#chain], root);
  }

  /** An SVID for a path of the trust domain, such as `/agent`. */
  svid(path = "/workload", options: SvidOptions = {}): TestSvid {
    const spiffeId = `spiffe://${this.trustDomain}${path}`;
    const { uris = [spiffeId], dnsNames = [], keyUsage, isAuthority = false } = options;
    const altNames = [
      ...uris.map((value) => ({ type: 6, value })),
      ...dnsNames.map((value) => ({ type: 2, value })),
    ];
    const usages = keyUsage ?? { digitalSignature: true, keyEncipherment: true };
    const pair = makePair();
    const leaf = certify(
      { name: "workload", pair },
      { name: this.#name, pair: this.#pair },
      [
        { name: "basicConstraints", cA: isAuthority, critical: true },
        { name: "keyUsage", critical: true, ...usages },
        { name: "extKeyUsage", serverAuth: true, clientAuth: true },
        ...(altNames.length === 0 ? [] : [{ name: "subjectAltName", altNames }]),
      ],
      options,
    );
    const chain = [leaf, ...this.#chain];
    return {
      spiffeId,
      cert: chain.map((one) => forge.pki.certificateToPem(one)).join(""),
      key: pair.pem,
      certDer: Buffer.concat(chain.map(derOf)),
      keyDer: pair.der,
    };
  }
}

function authorityExtensions(trustDomain: string): object[] {
  return [
    { name: "basicConstraints", cA: true, critical: true },
    { name: "keyUsage", keyCertSign: true, cRLSign: true, critical: true },
    { name: "subjectAltName", altNames: [{ type: 6, value: `spiffe://${trustDomain}` }] },
  ];
}

interface Named {
  readonly name: string;
  readonly pair: Pair;
}

function certify(
  subject: Named,
  issuer: Named,
  extensions: readonly object[],
  { notBefore, notAfter }: SvidOptions,
): forge.pki.Certificate {
  const made = forge.pki.createCertificate();
  made.publicKey = subject.pair.publicKey;
  made.serialNumber = `01${randomBytes(8).toString("hex")}`;
  made.validity.notBefore = notBefore ?? new Date(Date.now() - hourMs);
  made.validity.notAfter = notAfter ?? new Date(Date.now() + hourMs);
  made.setSubject([{ name: "commonName", value: subject.name }]);
  made.setIssuer([{ name: "commonName", value: issuer.name }]);
  made.setExtensions([...extensions]);
  made.sign(issuer.pair.privateKey, forge.md.sha256.create());
  return made;
}
