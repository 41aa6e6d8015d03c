/** An authority that vouches for one trust domain only, whichever other authorities it stands beside. */
import { X509Certificate } from "node:crypto";
import { type DerElement, readElements } from "./der-reader.ts";

const extensionsTag = 0xa3;
/** RFC 5280 section 4.2.1.10: the OID of nameConstraints, and `critical: TRUE`. */
const nameConstraints = Buffer.from("0603551d1e", "hex");
const critical = Buffer.from("0101ff", "hex");
const permitted = 0xa0;
const uriTag = 0x86;

/**
 * The same authority with a name constraint: OpenSSL then takes no URI below it but those of the trust domain.
 *
 * Node checks a peer against all authorities at once and does not show a server which of them, nor which intermediates,
 * led to the peer. The signature does not fit any more, which is not looked at: an authority is trusted by being listed.
 * Throws an Error where the certificate has no extensions, and so is none of an authority of version 3.
 */
export function anchorOf(pem: string, trustDomain: string): string {
  const [certificate] = readElements(new X509Certificate(pem).raw);
  const [signed, ...signature] = childrenOf(certificate);
  const fields = childrenOf(signed);
  const last = fields.at(-1);
  if (last?.tag !== extensionsTag) throw new Error("an authority's certificate has no extensions");
  const extensions = childrenOf(readElements(last.contents)[0]);
  const isConstraints = ({ contents }: DerElement): boolean =>
    contents.subarray(0, nameConstraints.length).equals(nameConstraints);
  const own = extensions.find(isConstraints);
  const list = der(
    0x30,
    ...extensions.filter((one) => one !== own).map(({ whole }) => whole),
    constraintsOf(trustDomain, own),
  );
  const body = der(
    0x30,
    ...fields.slice(0, -1).map(({ whole }) => whole),
    der(extensionsTag, list),
  );
  const made = der(0x30, body, ...signature.map(({ whole }) => whole));
  return new X509Certificate(made).toString();
}

/** What the authority says of other kinds of names stays. */
function constraintsOf(trustDomain: string, own: DerElement | undefined): Buffer {
  const [value] = own === undefined ? [] : childrenOf(own).slice(-1);
  const parts = value === undefined ? [] : childrenOf(readElements(value.contents)[0]);
  const kept = parts.filter(({ tag }) => tag === permitted).flatMap(childrenOf);
  const others = kept.filter((subtree) => childrenOf(subtree)[0]?.tag !== uriTag);
  const uri = der(0x30, der(uriTag, Buffer.from(trustDomain)));
  const constraints = der(
    0x30,
    der(permitted, ...others.map(({ whole }) => whole), uri),
    ...parts.filter(({ tag }) => tag !== permitted).map(({ whole }) => whole),
  );
  return der(0x30, nameConstraints, critical, der(0x04, constraints));
}

function childrenOf(element: DerElement | undefined): DerElement[] {
  return element === undefined ? [] : readElements(element.contents);
}

/** One element. Certificates are shorter than 64 KiB; X509Certificate refuses what is not DER. */
function der(tag: number, ...parts: readonly Buffer[]): Buffer {
  const contents = Buffer.concat(parts);
  const { length } = contents;
  const long = length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...(length < 0x80 ? [length] : long)]), contents]);
}
