/** Host names and host patterns as a policy file may write them, in the form in which destinations are compared. */
import { domainToASCII } from "node:url";
import { messageOf } from "../errors.ts";
import { parseAddress } from "../net/address.ts";
import { parseAuthority } from "../net/destination.ts";

/** A host or host pattern in canonical form, or the reason why it is none. */
export type HostSyntax =
  | { readonly host: string; readonly error?: undefined }
  | { readonly host?: undefined; readonly error: string };

const patternLabel = /^[a-z0-9_*-]{1,63}$/;

/** Lower case, no root dot, canonical address: the form in which destinations come. */
export function parseHostSyntax(written: string): HostSyntax {
  const unbracketed = /^\[(.*)\]$/.exec(written)?.[1] ?? written;
  if (unbracketed.includes(":")) {
    const address = parseAddress(unbracketed);
    if (address !== undefined) return { host: address.unmapped().toString() };
    return { error: "is no IPv6 address, and a port belongs into the port field" };
  }
  if (/[^\u0021-\u007e]/.test(written)) {
    const ascii = domainToASCII(written);
    return { error: ascii === "" ? "is no host name" : `must be written in ASCII: ${ascii}` };
  }
  if (written.includes("*")) return parsePattern(written.toLowerCase().replace(/\.$/, ""));
  try {
    return { host: parseAuthority(written, "tcp", 1).host };
  } catch (error) {
    return { error: messageOf(error) };
  }
}

function parsePattern(host: string): HostSyntax {
  const error = wildcardError(host);
  if (error !== undefined) return { error };
  if (host.length > 253) return { error: "is longer than 253 characters" };
  const bad = host.split(".").find((part) => !patternLabel.test(part));
  if (bad !== undefined) return { error: `label '${bad.slice(0, 63)}' is no DNS label` };
  return { host };
}

/** Which wildcards a host may have: a whole label, `**` as the whole first label, or part of the first label. */
function wildcardError(host: string): string | undefined {
  if (host === "*" || host === "**") {
    return `wildcard '${host}' matches all hosts; name a domain, such as '*.example.com'`;
  }
  const [first = "", ...rest] = host.split(".");
  if (rest.length < 2) {
    return `TLD wildcard '${host}' is not allowed; name a domain, such as '*.example.com'`;
  }
  if ((first.includes("**") && first !== "**") || rest.some((part) => part.includes("**"))) {
    return "'**' is allowed only as the whole first label";
  }
  if (rest.some((part) => part.includes("*") && part !== "*")) {
    return "a middle DNS label wildcard must be the whole label '*'";
  }
  return undefined;
}

/** True when some host matches both patterns. */
export function hostsOverlap(one: string, other: string): boolean {
  const left = one.split(".").reverse();
  const right = other.split(".").reverse();
  for (let index = 0; ; index += 1) {
    const a = left[index];
    const b = right[index];
    if (a === undefined || b === undefined) return a === b;
    // `**` takes one label or more, so that all that remains on the other side is within it.
    if (a === "**" || b === "**") return true;
    if (!labelsOverlap(a, b)) return false;
  }
}

function labelsOverlap(one: string, other: string): boolean {
  if (!one.includes("*")) return other.includes("*") ? labelMatches(other, one) : one === other;
  if (!other.includes("*")) return labelMatches(one, other);
  // Two patterns with stars can meet exactly when their fixed ends agree.
  const [headA = "", headB = ""] = [one.split("*")[0], other.split("*")[0]];
  const [tailA = "", tailB = ""] = [one.split("*").at(-1), other.split("*").at(-1)];
  const heads = headA.startsWith(headB) || headB.startsWith(headA);
  return heads && (tailA.endsWith(tailB) || tailB.endsWith(tailA));
}

/** A label against a label pattern, left to right, each fixed part at its first place. */
function labelMatches(pattern: string, text: string): boolean {
  const parts = pattern.split("*");
  const first = parts[0] ?? "";
  const last = parts.at(-1) ?? "";
  if (!text.startsWith(first) || text.length < first.length + last.length) return false;
  let at = first.length;
  for (const part of parts.slice(1, -1)) {
    const found = text.indexOf(part, at);
    if (found === -1) return false;
    at = found + part.length;
  }
  return text.endsWith(last) && text.length - last.length >= at;
}
