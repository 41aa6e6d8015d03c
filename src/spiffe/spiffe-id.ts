/** SPIFFE IDs, as the SPIFFE-ID standard has them: `spiffe://trust-domain/path`. */

/** A checked SPIFFE ID. */
export interface SpiffeId {
  /** The whole of it. */
  readonly text: string;
  /** Without `spiffe://`, such as `example.org`. */
  readonly trustDomain: string;
  /** Empty, or from its first slash on. */
  readonly path: string;
}

// SPIFFE-ID, section 2.3: what receivers have to take.
const maxLength = 2_048;
const maxDomainLength = 255;

const scheme = "spiffe://";

/** The parts of an ID, or in a string what is wrong with it. Nothing is normalised: two spellings are two IDs. */
export function parseSpiffeId(text: string): SpiffeId | string {
  if (!text.startsWith(scheme)) return "it does not begin with spiffe://";
  if (Buffer.byteLength(text) > maxLength) return `it is longer than ${maxLength} bytes`;
  const slash = text.indexOf("/", scheme.length);
  const trustDomain = slash === -1 ? text.slice(scheme.length) : text.slice(scheme.length, slash);
  const path = slash === -1 ? "" : text.slice(slash);
  if (trustDomain === "") return "it has no trust domain";
  if (trustDomain.length > maxDomainLength)
    return `its trust domain is longer than ${maxDomainLength} characters`;
  if (!/^[a-z0-9._-]+$/.test(trustDomain))
    return "its trust domain has other characters than a-z, 0-9, dot, hyphen and underscore";
  for (const segment of path.split("/").slice(1)) {
    if (segment === "") return "its path has an empty segment or ends in a slash";
    if (segment === "." || segment === "..") return "its path has a segment of dots";
    if (!/^[A-Za-z0-9._-]+$/.test(segment))
      return "its path has other characters than letters, digits, dot, hyphen and underscore";
  }
  return { text, trustDomain, path };
}

/** The trust domain of a key of a bundle map, which is `spiffe://example.org` or `example.org`; undefined for neither. */
export function trustDomainOf(text: string): string | undefined {
  const id = parseSpiffeId(text.startsWith(scheme) ? text : scheme + text);
  return typeof id === "string" || id.path !== "" ? undefined : id.trustDomain;
}
