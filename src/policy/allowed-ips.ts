/** The `allowed_ips` of an endpoint: ranges that the dialled address must be in, none of them reserved for nobody. */
import { AddressSet, type Cidr, parseCidr } from "../net/address.ts";
import type { Node } from "./node.ts";

/** No policy opens these: loopback, link-local with the metadata services, unspecified. */
const alwaysBlocked: readonly Cidr[] = [
  "127.0.0.0/8",
  "169.254.0.0/16",
  "0.0.0.0/32",
  "::/128",
  "::1/128",
  "fe80::/10",
].map((text) => parseCidr(text));

/** A prefix that lets in more than 65,536 addresses is rarely meant. */
const widePrefix = 16;

/** Why a range may not stand in `allowed_ips`, or undefined. */
export function rangeObjection(text: string): string | undefined {
  let range: Cidr;
  try {
    range = parseCidr(text);
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
  const blocked = alwaysBlocked.find(
    (other) => other.contains(range.network) || range.contains(other.network),
  );
  return blocked === undefined
    ? undefined
    : `'${text}' overlaps ${blocked.toString()}, which no policy can open`;
}

/** Reads the list; an empty one is the same as none. */
export function readAllowedIps(node: Node): AddressSet | undefined {
  const ranges: Cidr[] = [];
  for (const item of node.items()) {
    const text = item.string();
    if (text === undefined) continue;
    const objection = rangeObjection(text);
    if (objection !== undefined) {
      item.error(objection);
      continue;
    }
    const range = parseCidr(text);
    if (range.prefix < widePrefix) item.warning(`'${text}' is a wide range`);
    ranges.push(range);
  }
  return ranges.length === 0 ? undefined : new AddressSet(ranges);
}
