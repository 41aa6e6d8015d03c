/**
 * DER in node-forge's terms: binary strings in and out. node-forge is loaded on first use, so that a configuration
 * without the bridge does not pay for it.
 */
import type forge from "node-forge";
import { isIP, isIPv4 } from "node:net";

type Asn1 = typeof forge.asn1;
type Node = forge.asn1.Asn1;

/** Builds and reads DER. Values are binary strings, one character per byte, as node-forge keeps them. */
export class Der {
  readonly #asn1: Asn1;

  private constructor(asn1: Asn1) {
    this.#asn1 = asn1;
  }

  static async load(): Promise<Der> {
    const { default: asn1 } = await import("node-forge/lib/asn1.js");
    return new Der(asn1);
  }

  /** One element of any tag around finished contents; node-forge writes tag and length. */
  element(tag: number, contents: string): string {
    const node = this.#asn1.create(tag & 0xc0, tag & 0x3f, false, contents);
    return this.#asn1.toDer(node).getBytes();
  }

  sequence(...parts: readonly string[]): string {
    return this.element(0x30, parts.join(""));
  }

  oid(dotted: string): string {
    return this.element(this.#asn1.Type.OID, this.#asn1.oidToDer(dotted).getBytes());
  }

  octets(contents: string): string {
    return this.element(this.#asn1.Type.OCTETSTRING, contents);
  }

  /** A bit string of whole bytes, or with some unused bits at its end. */
  bits(contents: string, unusedBits = 0): string {
    return this.element(this.#asn1.Type.BITSTRING, String.fromCharCode(unusedBits) + contents);
  }

  boolean(value: boolean): string {
    return this.element(this.#asn1.Type.BOOLEAN, value ? "\xff" : "\x00");
  }

  /** A non-negative integer from its big-endian bytes, as short as DER wants it. */
  unsigned(bytes: Uint8Array): string {
    const firstUsed = bytes.findIndex((byte) => byte !== 0);
    const digits = firstUsed === -1 ? Uint8Array.of(0) : bytes.subarray(firstUsed);
    const sign = (digits[0] ?? 0) >= 0x80 ? "\x00" : "";
    return this.element(this.#asn1.Type.INTEGER, sign + binary(digits));
  }

  /** RFC 5280 section 4.1.2.5: UTCTime through 2049, GeneralizedTime after. */
  time(date: Date): string {
    if (date.getUTCFullYear() < 2050) {
      return this.element(this.#asn1.Type.UTCTIME, this.#asn1.dateToUtcTime(date));
    }
    return this.element(this.#asn1.Type.GENERALIZEDTIME, this.#asn1.dateToGeneralizedTime(date));
  }

  /** A distinguished name with nothing but a common name, or the empty name. */
  commonName(name: string | undefined): string {
    if (name === undefined) return this.sequence();
    const text = binary(Buffer.from(name, "utf8"));
    const attribute = this.sequence(this.oid("2.5.4.3"), this.element(this.#asn1.Type.UTF8, text));
    return this.sequence(this.element(0x31, attribute));
  }

  /** The tree of one complete element; throws what node-forge throws when it is not DER. */
  parse(der: string): Node {
    // Published types know only the older signature with a boolean.
    const options = { strict: true, parseAllBytes: true, decodeBitStrings: false };
    const fromDer: (bytes: string, options: object) => Node = this.#asn1.fromDer as never;
    return fromDer(der, options);
  }

  /** Writes a parsed element back, byte for byte as it was. */
  write(node: Node): string {
    return this.#asn1.toDer(node).getBytes();
  }

  readOid(node: Node | undefined): string {
    return this.#asn1.derToOid(contentsOf(node));
  }
}

/** The identifier byte of an element, undefined for none. */
export function tagOf(node: Node | undefined): number | undefined {
  if (node === undefined) return undefined;
  return node.tagClass | node.type | (node.constructed ? 0x20 : 0);
}

/** The children of a constructed element. */
export function childrenOf(node: Node | undefined): readonly Node[] {
  if (node === undefined || typeof node.value === "string") throw new Error("not a sequence");
  return node.value;
}

/** The contents of a primitive element. */
export function contentsOf(node: Node | undefined): string {
  if (node === undefined || typeof node.value !== "string") throw new Error("not a plain value");
  return node.value;
}

/** Bytes as node-forge's binary string. */
export function binary(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1");
}

/** The 4 or 16 bytes of an IP address in text, or undefined when it is none. */
export function addressBytes(text: string): string | undefined {
  if (isIPv4(text)) return String.fromCharCode(...text.split(".").map(Number));
  if (isIP(text) !== 6 || text.includes("%")) return undefined;
  // The URL parser writes an embedded IPv4 address as two groups and compresses zeros in one way.
  const [head = "", tail] = new URL(`http://[${text}]`).hostname.slice(1, -1).split("::");
  const before = head.split(":").filter((group) => group !== "");
  const after = (tail ?? "").split(":").filter((group) => group !== "");
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => "0");
  return [...before, ...zeros, ...after]
    .map((group) => Number.parseInt(group, 16))
    .map((group) => String.fromCharCode(group >> 8, group & 0xff))
    .join("");
}
