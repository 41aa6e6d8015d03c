/**
 * IP addresses as bytes, CIDR ranges, and what kind of place an address is.
 *
 * The classes follow the IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890, RFC 8190). net.BlockList
 * is not used: with ::ffff:0:0/96 in it, it matches every IPv4 address.
 */
import { isIPv6 } from "node:net";

/** What kind of place an address is; everything but "public" is closed unless the operator opens it. */
export type AddressClass =
  | "public"
  | "private"
  | "loopback"
  | "link-local"
  | "metadata"
  | "unspecified"
  | "multicast"
  | "broadcast"
  | "reserved";

/** One IPv4 or IPv6 address; made by {@link parseAddress}. */
export class IpAddress {
  readonly version: 4 | 6;
  readonly bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    if (bytes.length !== 4 && bytes.length !== 16) {
      throw new RangeError("an address has 4 or 16 bytes");
    }
    this.version = bytes.length === 4 ? 4 : 6;
    this.bytes = bytes;
  }

  /** Dotted quad, or RFC 5952 hexadecimal (also for embedded IPv4, as WHATWG URL writes it). */
  toString(): string {
    return this.version === 4 ? this.bytes.join(".") : formatIPv6(this.bytes);
  }

  equals(other: IpAddress): boolean {
    return this.version === other.version && samePrefix(this.bytes, other.bytes, 128);
  }

  /** The IPv4 address that an IPv4-mapped IPv6 address (::ffff:0:0/96) is dialled as; itself otherwise. */
  unmapped(): IpAddress {
    return this.version === 6 && samePrefix(this.bytes, mappedPrefix, 96)
      ? new IpAddress(this.bytes.slice(12))
      : this;
  }
}

/**
 * Parses a strict address literal: dotted quad without leading zeros, or unbracketed IPv6 without a zone id.
 *
 * Returns undefined for anything else: a resolver answer that is not understood is not to be dialled.
 */
export function parseAddress(text: string): IpAddress | undefined {
  const four = fourBytes(text);
  if (four !== undefined) return new IpAddress(four);
  if (text.includes("%") || !isIPv6(text)) return undefined;
  const gap = text.indexOf("::");
  const head = groupBytes(gap === -1 ? text : text.slice(0, gap));
  const tail = gap === -1 ? [] : groupBytes(text.slice(gap + 2));
  const bytes = new Uint8Array(16);
  bytes.set(head, 0);
  bytes.set(tail, 16 - tail.length);
  return new IpAddress(bytes);
}

/** Asked for several times in every flow: to match, split and convert takes three times as long. */
function fourBytes(text: string): Uint8Array | undefined {
  const bytes = new Uint8Array(4);
  let part = 0;
  /** -1 before its first digit. */
  let value = -1;
  for (let at = 0; at < text.length; at += 1) {
    const digit = text.charCodeAt(at) - 48;
    if (digit === -2 && value >= 0 && part < 3) {
      bytes[part] = value;
      part += 1;
      value = -1;
    } else if (digit < 0 || digit > 9 || value === 0) return undefined;
    else value = Math.max(0, value) * 10 + digit;
    if (value > 255) return undefined;
  }
  bytes[3] = value;
  return part === 3 && value >= 0 ? bytes : undefined;
}

function groupBytes(text: string): number[] {
  const bytes: number[] = [];
  if (text === "") return bytes;
  for (const group of text.split(":")) {
    if (group.includes(".")) {
      bytes.push(...group.split(".").map(Number));
    } else {
      const value = Number.parseInt(group, 16);
      bytes.push(value >> 8, value & 0xff);
    }
  }
  return bytes;
}

function formatIPv6(bytes: Uint8Array): string {
  const groups: string[] = [];
  let bestStart = -1;
  let bestLength = 1;
  let runStart = -1;
  for (let at = 0; at < 16; at += 2) {
    const value = ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0);
    groups.push(value.toString(16));
    if (value !== 0) {
      runStart = -1;
      continue;
    }
    const here = at / 2;
    runStart = runStart === -1 ? here : runStart;
    // Strictly longer: RFC 5952 section 4.2.3 shortens the first of two equal runs.
    if (here - runStart + 1 > bestLength) {
      bestStart = runStart;
      bestLength = here - runStart + 1;
    }
  }
  if (bestStart === -1) {
    return groups.join(":");
  }
  return `${groups.slice(0, bestStart).join(":")}::${groups.slice(bestStart + bestLength).join(":")}`;
}

/** True when both byte strings begin with the same `bits` bits (as far as the shorter one goes). */
function samePrefix(a: Uint8Array, b: Uint8Array, bits: number): boolean {
  const limit = Math.min(bits, a.length * 8, b.length * 8);
  const whole = limit >> 3;
  for (let at = 0; at < whole; at += 1) {
    if (a[at] !== b[at]) {
      return false;
    }
  }
  const rest = limit & 7;
  return rest === 0 || (((a[whole] ?? 0) ^ (b[whole] ?? 0)) & (0xff << (8 - rest)) & 0xff) === 0;
}

/** A range of addresses of one family; made by {@link parseCidr}. */
export class Cidr {
  readonly network: IpAddress;
  readonly prefix: number;

  constructor(network: IpAddress, prefix: number) {
    const bytes = network.bytes.slice();
    for (let at = 0; at < bytes.length; at += 1) {
      const kept = Math.max(0, Math.min(8, prefix - at * 8));
      bytes[at] = (bytes[at] ?? 0) & (0xff << (8 - kept)) & 0xff;
    }
    this.network = new IpAddress(bytes);
    this.prefix = prefix;
  }

  /** Whether the address is in the range; an IPv4-mapped address counts as the IPv4 address that it dials. */
  contains(ip: IpAddress): boolean {
    const plain = ip.unmapped();
    return (
      plain.version === this.network.version &&
      samePrefix(plain.bytes, this.network.bytes, this.prefix)
    );
  }

  toString(): string {
    return `${this.network.toString()}/${this.prefix}`;
  }
}

/** Parses "10.0.0.0/8", "fd00::/8" or a single address; host bits are cleared. Throws an Error that says what is wrong. */
export function parseCidr(text: string): Cidr {
  const slash = text.indexOf("/");
  const address = parseAddress(slash === -1 ? text : text.slice(0, slash));
  if (address === undefined) {
    throw new Error(`"${text}" is not an address range: expected an IP address or CIDR`);
  }
  const most = address.version === 4 ? 32 : 128;
  const digits = slash === -1 ? String(most) : text.slice(slash + 1);
  if (!/^(?:0|[1-9][0-9]{0,2})$/.test(digits) || Number(digits) > most) {
    throw new Error(
      `"${text}" is not an address range: the prefix length must be 0 to ${String(most)}`,
    );
  }
  const prefix = Number(digits);
  const plain = address.unmapped();
  // Only a range that lies wholly in ::ffff:0:0/96 means IPv4 addresses.
  return plain !== address && prefix >= 96
    ? new Cidr(plain, prefix - 96)
    : new Cidr(address, prefix);
}

/** A list of ranges that is asked as one. */
export class AddressSet {
  readonly ranges: readonly Cidr[];
  #text: string | undefined;

  constructor(ranges: Iterable<Cidr> = []) {
    this.ranges = [...ranges];
  }

  /** Parses every text with {@link parseCidr}. */
  static parse(texts: Iterable<string>): AddressSet {
    return new AddressSet(Array.from(texts, parseCidr));
  }

  contains(ip: IpAddress): boolean {
    return this.ranges.some((range) => range.contains(ip));
  }

  /** The ranges, comma-separated, as a key of what was dialled under them. */
  toString(): string {
    this.#text ??= this.ranges.map(String).join(",");
    return this.#text;
  }
}

const bytesOf = (text: string): Uint8Array => parseCidr(text).network.bytes;
// Not through parseCidr, which folds this very range into IPv4.
const mappedPrefix = Uint8Array.of(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff);
const compatiblePrefix = bytesOf("::"); // RFC 4291 section 2.5.5.1, deprecated
const translatedPrefix = bytesOf("::ffff:0:0:0"); // RFC 2765 section 2.1, obsolete
const nat64Prefix = bytesOf("64:ff9b::"); // RFC 6052 section 2.1
const localNat64Prefix = bytesOf("64:ff9b:1::"); // RFC 8215
const sixToFourPrefix = bytesOf("2002::"); // RFC 3056 section 2
const teredoPrefix = bytesOf("2001::"); // RFC 4380 section 4

/** Where RFC 6052 section 2.2 puts the IPv4 bytes for prefix lengths 48, 56, 64 and 96 (byte 8 is skipped). */
const localNat64Layouts = [
  [6, 7, 9, 10],
  [7, 9, 10, 11],
  [9, 10, 11, 12],
  [12, 13, 14, 15],
] as const;

/** The IPv4 addresses that an IPv6 address carries in a known transition form; empty for any other address. */
export function embeddedIPv4(ip: IpAddress): readonly IpAddress[] {
  const { bytes } = ip;
  if (ip.version === 4) {
    return [];
  }
  const found: IpAddress[] = [];
  const at = (...places: readonly number[]): void => {
    found.push(new IpAddress(Uint8Array.from(places, (place) => bytes[place] ?? 0)));
  };
  const low = bytes.slice(12);
  const isCompatible =
    samePrefix(bytes, compatiblePrefix, 96) && !samePrefix(bytes, compatiblePrefix, 127);
  // ISATAP: interface identifier 0000:5efe or 0200:5efe, then the address (RFC 5214 section 6.1).
  const isIsatap =
    ((bytes[8] ?? 0) & 0xfd) === 0 && bytes[9] === 0 && bytes[10] === 0x5e && bytes[11] === 0xfe;
  if (
    isCompatible ||
    isIsatap ||
    samePrefix(bytes, mappedPrefix, 96) ||
    samePrefix(bytes, translatedPrefix, 96) ||
    samePrefix(bytes, nat64Prefix, 96)
  ) {
    at(12, 13, 14, 15);
  }
  if (samePrefix(bytes, localNat64Prefix, 48)) {
    // The operator's prefix length is unknown, so every layout is judged; 0.x.x.x is only a wrong guess.
    for (const layout of localNat64Layouts) {
      if (bytes[layout[0]] !== 0) {
        at(...layout);
      }
    }
  }
  if (samePrefix(bytes, sixToFourPrefix, 16)) {
    at(2, 3, 4, 5);
  }
  if (samePrefix(bytes, teredoPrefix, 32)) {
    at(4, 5, 6, 7);
    found.push(new IpAddress(low.map((byte) => byte ^ 0xff)));
  }
  return found;
}

const range = (kind: AddressClass, ...texts: readonly string[]) => ({
  kind,
  set: AddressSet.parse(texts),
});

/** Addresses at which clouds hand out credentials to whoever asks. */
const metadata = range(
  "metadata",
  "169.254.169.254", // AWS, Google, Azure, Oracle, DigitalOcean and others
  "169.254.170.2", // AWS ECS task credentials
  "169.254.170.23", // AWS EKS pod identity
  "fd00:ec2::254", // AWS over IPv6
  "fd00:ec2::23", // AWS EKS pod identity over IPv6
  "fd20:ce::254", // Google over IPv6
  "168.63.129.16", // Azure host
  "100.100.100.200", // Alibaba
  "192.0.0.192", // Oracle
);

/** First match wins. A registry row that is "globally reachable: true" needs no line here. */
const ranges4 = [
  metadata,
  range("broadcast", "255.255.255.255"), // RFC 919
  range("unspecified", "0.0.0.0/8"), // RFC 791 "this network"; Linux dials 0.0.0.0 as loopback
  range("loopback", "127.0.0.0/8"), // RFC 1122
  range("link-local", "169.254.0.0/16"), // RFC 3927
  range("private", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"), // RFC 1918, RFC 6598
  range("multicast", "224.0.0.0/4"), // RFC 5771
  // RFC 6890, RFC 5737 (TEST-NET), RFC 7526 (6to4 relay), RFC 1112. RFC 2544 benchmarking (198.18/15) is forwardable
  // like RFC 1918, but no service uses it: it is reserved, and an operator who uses it lists the range.
  range("reserved", "192.0.0.0/24", "192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24"),
  range("reserved", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4"),
] as const;

const ranges6 = [
  metadata,
  range("unspecified", "::/128"), // RFC 4291
  range("loopback", "::1/128"), // RFC 4291
  range("public", "64:ff9b::/96"), // RFC 6052: only the embedded address counts
  range("private", "64:ff9b:1::/48"), // RFC 8215
  range("private", "fc00::/7", "fec0::/10"), // RFC 4193, RFC 3879
  range("link-local", "fe80::/10"), // RFC 4291
  range("multicast", "ff00::/8"), // RFC 4291
  // RFC 2928 (with Teredo), RFC 3849, RFC 9637, RFC 7526 (6to4 is obsolete)
  range("reserved", "2001::/23", "2001:db8::/32", "3fff::/20", "2002::/16"),
  range("public", "2000::/3"), // the only global unicast space that IANA has opened
] as const;

/** Strictest last. */
const strictness: readonly AddressClass[] = [
  "public",
  "private",
  "reserved",
  "multicast",
  "broadcast",
  "unspecified",
  "link-local",
  "loopback",
  "metadata",
];

/** Says what kind of place an address is: the strictest of the address itself and of any IPv4 that it embeds. */
export function classifyAddress(ip: IpAddress): AddressClass {
  const plain = ip.unmapped();
  const table = plain.version === 4 ? ranges4 : ranges6;
  let worst = table.find((row) => row.set.contains(plain))?.kind ?? defaultClass(plain);
  for (const inner of embeddedIPv4(plain)) {
    const kind = classifyAddress(inner);
    worst = strictness.indexOf(kind) > strictness.indexOf(worst) ? kind : worst;
  }
  return worst;
}

function defaultClass(ip: IpAddress): AddressClass {
  return ip.version === 4 ? "public" : "reserved";
}

const metadataNames: ReadonlySet<string> = new Set([
  "metadata",
  "metadata.google.internal",
  "metadata.goog",
  "metadata.azure.internal",
  "metadata.azure.com",
  "metadata.oraclecloud.com",
  "metadata.tencentyun.com",
  "instance-data",
  "instance-data.ec2.internal",
]);

/** Whether a canonical host name is one that a cloud gives to its metadata service. */
export function isMetadataName(host: string): boolean {
  return metadataNames.has(host);
}
