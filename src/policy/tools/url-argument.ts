/**
 * URLs in arguments: read so that no server reads them otherwise, and classified by where they lead.
 *
 * The WHATWG parser repairs what it reads (white space, backslashes, missing slashes, numbers as addresses); other
 * parsers do not, or repair it differently. A URL that had to be repaired is therefore none that a rule can grant.
 */
import {
  type AddressClass,
  type AddressSet,
  classifyAddress,
  isMetadataName,
  parseAddress,
} from "../../net/address.ts";

/** A URL whose parts every parser agrees on. */
export interface PlainUrl {
  readonly scheme: string;
  /** Lower case, without brackets. */
  readonly host: string;
  readonly port: number;
  readonly pathname: string;
}

const defaultPorts: Readonly<Record<string, number>> = {
  http: 80,
  https: 443,
  ws: 80,
  wss: 443,
  ftp: 21,
};

/**
 * scheme "://" host [":" port] [path, query, fragment], in printable ASCII without backslash, userinfo or white space.
 *
 * Nor an @ where the host is followed by ? or #: old parsers look for it first, and dial what follows it.
 */
const plain =
  /^([a-z][a-z0-9+.-]*):\/\/(\[[0-9a-f:.]+\]|[a-z0-9_.-]+)(?::([0-9]{1,5}))?((?:\/[\x21-\x5b\x5d-\x7e]*|[?#][\x21-\x3f\x41-\x5b\x5d-\x7e]*)?)$/i;

const maxUrlLength = 8192;

/** Reads a URL; undefined for what is no URL or could be read in more than one way. */
export function readPlainUrl(text: string): PlainUrl | undefined {
  if (text.length > maxUrlLength) return undefined;
  const [, scheme = "", host = "", port = "", rest = ""] = plain.exec(text) ?? [];
  if (host === "" || !URL.canParse(text)) return undefined;
  const url = new URL(text);
  const lowerScheme = scheme.toLowerCase();
  const lowerHost = host.toLowerCase();
  // The parser changed the host: a number, an octal part, a long IPv6 form.
  if (url.hostname !== lowerHost || url.username !== "" || url.password !== "") return undefined;
  const rawPath = /^[^?#]*/.exec(rest)?.[0] ?? "";
  if (url.pathname !== (rawPath === "" ? "/" : rawPath)) return undefined;
  const number = port === "" ? defaultPorts[lowerScheme] : Number(port);
  if (number === undefined || number > 65_535) return undefined;
  return {
    scheme: lowerScheme,
    host: lowerHost.replace(/^\[|\]$/g, ""),
    port: number,
    pathname: url.pathname,
  };
}

/** Hosts and ranges that arguments may name although they are not public. */
export interface PrivateExceptions {
  readonly addresses: AddressSet;
  readonly hosts: ReadonlySet<string>;
}

/** Where a text leads that looks like a URL, when that is no public place; undefined otherwise. */
export function privatePlace(text: string, exceptions: PrivateExceptions): string | undefined {
  if (file.test(text) && !exceptions.hosts.has("file:")) return "a local file";
  const host = urlHost(text);
  return host === undefined ? undefined : privateHost(host, exceptions);
}

/** What kind of place a host is that the public must not reach; undefined for a public one. */
export function privateHost(host: string, exceptions: PrivateExceptions): string | undefined {
  const name = host
    .toLowerCase()
    .replace(/^\[|\]$/g, "")
    .replace(/\.$/, "");
  const address = parseAddress(name);
  if (address !== undefined) {
    const kind: AddressClass = classifyAddress(address);
    if (kind === "public" || exceptions.addresses.contains(address)) return undefined;
    return `a ${kind} address`;
  }
  if (exceptions.hosts.has(name)) return undefined;
  if (isMetadataName(name)) return "a metadata service";
  return name === "localhost" || name.endsWith(".localhost") ? "this machine" : undefined;
}

/** The schemes that WHATWG calls special, with which it repairs most. */
const special = /^(?:https?|wss?|ftp):/i;
/** After C0 controls and spaces, which parsers remove. */
const file = /^[\p{Cc} ]*f[\t\n\r]*i[\t\n\r]*l[\t\n\r]*e[\t\n\r]*:/iu;
const schemed = /^[a-z][a-z0-9+.-]*:\/\//i;
/** An address with a port or a path and no scheme: what curl takes for http. */
const bareAddress =
  /^(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?[/?#]|^(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|\[[0-9a-f:.]+\]):[0-9]{1,5}$/i;
const longestLookedAt = 65_536;

/** The host that a URL parser finds in the text, as generously as parsers are; undefined for what is no URL. */
function urlHost(text: string): string | undefined {
  // C0 controls and spaces around a URL, tabs and line ends inside it are removed (WHATWG URL section 4.4).
  const trimmed = text
    .slice(0, longestLookedAt)
    .replace(/^[\p{Cc} ]+|[\t\n\r]+/gu, "")
    .replaceAll("\\", "/");
  const candidate = absolute(trimmed);
  if (candidate === undefined) return undefined;
  if (URL.canParse(candidate)) {
    const { hostname } = new URL(candidate);
    if (hostname !== "") return authorityHost(hostname);
  }
  const authority = /^[^:]*:\/*([^/?#]*)/.exec(candidate)?.[1] ?? "";
  return authorityHost(authority.slice(authority.lastIndexOf("@") + 1).replace(/:[0-9]*$/, ""));
}

/** A scheme that is not special keeps numbers as they are; whoever dials them reads an address. */
function authorityHost(host: string): string {
  const asHttp = `http://${host}/`;
  return URL.canParse(asHttp) ? new URL(asHttp).hostname : host;
}

function absolute(text: string): string | undefined {
  if (special.test(text) || schemed.test(text)) return text;
  if (text.startsWith("//") || bareAddress.test(text))
    return `http:${text.startsWith("//") ? "" : "//"}${text}`;
  return undefined;
}
