/**
 * The `no_proxy` list: which destinations are dialled without a parent proxy.
 *
 * There is no standard. The rules are those of OpenShift and Go (golang.org/x/net/http/httpproxy) with the additions
 * that docs/corporate-proxy.md lists; everything that could be read in two ways is an error.
 */
import { domainToASCII } from "node:url";
import { type Cidr, type IpAddress, parseAddress, parseCidr } from "./address.ts";

/** One entry, compiled. A port of undefined stands for every port. */
type Rule =
  | { readonly kind: "all"; readonly source: string; readonly port: number | undefined }
  | {
      readonly kind: "name";
      readonly source: string;
      readonly port: number | undefined;
      readonly name: string;
      /** False for `.example.com` and `*.example.com`, which mean what is below the domain. */
      readonly includesDomain: boolean;
    }
  | {
      readonly kind: "range";
      readonly source: string;
      readonly port: number | undefined;
      readonly range: Cidr;
    };

/** A compiled list. */
export class NoProxy {
  readonly #rules: readonly Rule[];

  private constructor(rules: readonly Rule[]) {
    this.#rules = rules;
  }

  /** Compiles a list; commas and white space separate entries. Throws an Error that names the entry that is wrong. */
  static parse(list: string | readonly string[]): NoProxy {
    return new NoProxy(splitNoProxy(list).map(compile));
  }

  /** The entries as they were written, without repetitions. */
  get entries(): readonly string[] {
    return this.#rules.map(({ source }) => source);
  }

  /** Whether an address that a name resolves to can matter. */
  get hasRanges(): boolean {
    return this.#rules.some(({ kind }) => kind === "range");
  }

  /** The entry that a canonical host (name or address literal) and port match by themselves. */
  find(host: string, port: number): string | undefined {
    const address = parseAddress(host);
    const rule = this.#rules.find(
      (rule) =>
        (rule.port === undefined || rule.port === port) &&
        (address === undefined ? matchesName(rule, host) : matchesAddress(rule, address)),
    );
    return rule?.source;
  }

  /** Those of a name's addresses that an address or a CIDR block of the list covers. */
  among(addresses: readonly IpAddress[], port: number): readonly IpAddress[] {
    return addresses.filter((address) =>
      this.#rules.some(
        (rule) =>
          rule.kind === "range" &&
          (rule.port === undefined || rule.port === port) &&
          rule.range.contains(address),
      ),
    );
  }
}

/** The entries of a list, without empty ones and repetitions. */
export function splitNoProxy(list: string | readonly string[]): string[] {
  const texts = typeof list === "string" ? [list] : list;
  return [...new Set(texts.flatMap((text) => text.split(/[\s,]+/)).filter((text) => text !== ""))];
}

function matchesName(rule: Rule, host: string): boolean {
  switch (rule.kind) {
    case "all":
      return true;
    case "name":
      return (rule.includesDomain && host === rule.name) || host.endsWith(`.${rule.name}`);
    case "range":
      return false;
  }
}

function matchesAddress(rule: Rule, address: IpAddress): boolean {
  return rule.kind === "all" || (rule.kind === "range" && rule.range.contains(address));
}

function compile(source: string): Rule {
  if (source.includes("://") || source.includes("@")) throw invalid(source, "it is not a URL");
  if (source.includes("/")) return { kind: "range", source, port: undefined, range: block(source) };
  const bare = parseAddress(source);
  if (bare !== undefined) return { kind: "range", source, port: undefined, range: single(bare) };
  const { host, port } = splitPort(source);
  if (host === "*") return { kind: "all", source, port };
  const address = parseAddress(host);
  if (address !== undefined) return { kind: "range", source, port, range: single(address) };
  return { kind: "name", source, port, ...compileName(source, host) };
}

/** `host`, `host:port`, `[v6]`, `[v6]:port`. */
function splitPort(source: string): { readonly host: string; readonly port: number | undefined } {
  const match = /^(?:\[([^\]]*)\]|([^:[\]]*))(?::(\d{1,5}))?$/.exec(source);
  if (match === null) throw invalid(source, "it is no host, host:port, address or CIDR block");
  const [, bracketed, plain = "", digits] = match;
  if (bracketed !== undefined && !bracketed.includes(":"))
    throw invalid(source, "brackets are for IPv6 addresses");
  const port = digits === undefined ? undefined : Number(digits);
  if (port !== undefined && (port === 0 || port > 65_535))
    throw invalid(source, "its port is not a number from 1 to 65535");
  return { host: bracketed ?? plain, port };
}

function compileName(
  source: string,
  host: string,
): { readonly name: string; readonly includesDomain: boolean } {
  const isBelow = host.startsWith(".") || host.startsWith("*.");
  const domain = host.replace(/^\*?\./, "").replace(/\.$/, "");
  if (domain.includes("*"))
    throw invalid(source, "a star stands alone or before the first dot, as in *.example.com");
  const name = domainToASCII(domain).toLowerCase();
  if (name === "" || name.startsWith(".") || name.includes(".."))
    throw invalid(source, "it is not a host name");
  // 010.0.0.1 or 10.1: some programs read an address there, others a name.
  if (parseAddress(name) !== undefined || /(?:^|\.)\d+$/.test(domain))
    throw invalid(source, "an IPv4 address has four decimal parts");
  return { name, includesDomain: !isBelow };
}

function block(source: string): Cidr {
  try {
    return parseCidr(source);
  } catch {
    throw invalid(source, "it is not a CIDR block such as 10.0.0.0/8 or fd00::/8");
  }
}

function single(address: IpAddress): Cidr {
  return parseCidr(address.unmapped().toString());
}

function invalid(source: string, why: string): Error {
  return new Error(`no_proxy entry "${shown(source)}" is invalid: ${why}`);
}

/** What stands before an @ may be a password. */
function shown(source: string): string {
  return source.replace(/^.*@/, "…@").slice(0, 100);
}
