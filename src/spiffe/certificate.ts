/** Whose certificate it is: the one SPIFFE ID that a certificate of a workload says of it. */
import { messageOf } from "../errors.ts";
import { type DerElement, readElements } from "./der-reader.ts";
import { parseSpiffeId, type SpiffeId } from "./spiffe-id.ts";

const oid = {
  keyUsage: "551d0f",
  subjectAltName: "551d11",
  basicConstraints: "551d13",
} as const;

/** RFC 5280 section 4.2.1.6: [6] uniformResourceIdentifier. */
const uriTag = 0x86;
/** RFC 5280 section 4.2.1.3: bit 0 digitalSignature, 5 keyCertSign, 6 cRLSign. */
const usage = { digitalSignature: 0x80, keyCertSign: 0x04, crlSign: 0x02 } as const;

/** What a certificate says of itself that node:crypto does not tell. */
interface Facts {
  readonly uris: readonly string[];
  readonly isAuthority: boolean;
  /** The first byte of the key usage; undefined where the certificate does not restrict it. */
  readonly usage: number | undefined;
}

/**
 * The SPIFFE ID of a leaf certificate in DER, or in a string why it is no X.509-SVID.
 *
 * Its chain and its time are not looked at here. Two URIs are refused whatever they say: one party could read the first
 * and the other the last (X509-SVID, section 2).
 */
export function spiffeIdOf(certificate: Buffer): SpiffeId | string {
  let facts: Facts;
  try {
    facts = factsOf(certificate);
  } catch (error) {
    return `the certificate cannot be read: ${messageOf(error)}`;
  }
  const [uri, ...more] = facts.uris;
  if (uri === undefined) return "the certificate has no URI, and so no SPIFFE ID";
  if (more.length > 0)
    return `the certificate has ${facts.uris.length} URIs, and an X.509-SVID has one`;
  const id = parseSpiffeId(uri);
  if (typeof id === "string") return `the URI of the certificate is no SPIFFE ID: ${id}`;
  if (facts.isAuthority) return "the certificate is that of an authority, not of a workload";
  const { usage: bits } = facts;
  if (bits !== undefined && (bits & usage.keyCertSign) !== 0)
    return "the certificate may sign certificates, and that of a workload may not";
  if (bits !== undefined && (bits & usage.crlSign) !== 0)
    return "the certificate may sign revocation lists, and that of a workload may not";
  if (bits !== undefined && (bits & usage.digitalSignature) === 0)
    return "the certificate may not be used for signatures (key usage)";
  return id;
}

/** The certificates that stand one behind the other, in DER each. Throws an Error where they are none. */
export function splitCertificates(bytes: Buffer): Buffer[] {
  const found = readElements(bytes);
  if (found.some(({ tag }) => tag !== 0x30)) throw new Error("it is not a certificate in DER");
  return found.map(({ whole }) => Buffer.from(whole));
}

function factsOf(certificate: Buffer): Facts {
  const [outer, ...rest] = readElements(certificate);
  if (outer === undefined || rest.length > 0) throw new Error("it is not one certificate in DER");
  const toBeSigned = readElements(outer.contents)[0];
  const fields = toBeSigned === undefined ? [] : readElements(toBeSigned.contents);
  const tagged = fields.find(({ tag }) => tag === 0xa3);
  const list = tagged === undefined ? undefined : readElements(tagged.contents)[0];
  const values = new Map<string, Buffer>();
  for (const { contents } of list === undefined ? [] : readElements(list.contents)) {
    const parts = readElements(contents);
    const name = parts[0]?.contents.toString("hex") ?? "";
    // RFC 5280 section 4.2: a second one would be read by some and not by others.
    if (values.has(name)) throw new Error("it has an extension twice");
    values.set(name, parts.at(-1)?.contents ?? Buffer.alloc(0));
  }
  return {
    uris: inner(values.get(oid.subjectAltName))
      .filter(({ tag }) => tag === uriTag)
      .map(({ contents }) => contents.toString("latin1")),
    isAuthority: inner(values.get(oid.basicConstraints)).some(
      ({ tag, contents }) => tag === 0x01 && contents[0] !== 0,
    ),
    usage: usageOf(values.get(oid.keyUsage)),
  };
}

function inner(value: Buffer | undefined): DerElement[] {
  const [sequence] = value === undefined ? [] : readElements(value);
  return sequence === undefined ? [] : readElements(sequence.contents);
}

/** A BIT STRING, whose first byte counts the unused bits at its end. */
function usageOf(value: Buffer | undefined): number | undefined {
  if (value === undefined) return undefined;
  return readElements(value)[0]?.contents[1] ?? 0;
}
