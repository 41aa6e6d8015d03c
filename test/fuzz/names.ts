/** Names of destinations and resources, held against how WHATWG URL reads them. */
import { ProxyError } from "../../src/errors.ts";
import {
  parseAbsoluteTarget,
  parseAuthority,
  type Destination,
} from "../../src/net/destination.ts";
import { parseAddress } from "../../src/net/address.ts";
import { canonicalTarget } from "../../src/http/canonical-target.ts";
import { readPath } from "../../src/http/path.ts";
import { parseTraceparent } from "../../src/http/trace-context.ts";
import { parseQuery } from "../../src/policy/request-facts.ts";
import { parseSpiffeId } from "../../src/spiffe/spiffe-id.ts";
import { caught, splitProblem, type Target, texts } from "./target.ts";

const defaultPorts: Readonly<Record<string, number>> = { "http:": 80, "https:": 443 };

/** A refusal without what it quotes. */
function wordsOf(refusal: string): string {
  return refusal.replaceAll(/"[^]*"|\d+/g, "");
}

/** Why another reader of this text would go elsewhere than ours. */
function urlProblem(text: string, ours: Destination): string | undefined {
  const url = URL.parse(text);
  if (url === null) return undefined;
  const named = url.hostname.replace(/^\[|\]$/g, "");
  const host = parseAddress(named)?.unmapped().toString() ?? named.replace(/\.$/, "");
  const port = url.port === "" ? defaultPorts[url.protocol] : Number(url.port);
  return splitProblem([host, port], [ours.host.replace(/\.$/, ""), ours.port]);
}

const absolute: Target = {
  name: "absolute-target",
  covers: ["/src/net/destination.ts"],
  seeds: texts(
    "http://example.com/",
    "https://EXAMPLE.com:8443/a?b=c",
    "http://[::1]:80/",
    "http://127.1/",
    "http://0x7f.0.0.1/",
    "http://user@example.com/",
    "http://example.com:/x",
    "http://xn--nxasmq6b.example./",
    "http://a\\@b/",
    "http://a?/@b",
  ),
  words: [
    "http://",
    "https://",
    "@",
    ":",
    "/",
    "\\",
    "?",
    "#",
    "[",
    "]",
    "%2e",
    "%00",
    ".",
    "..",
    "0x",
    "127.0.0.1",
    "::1",
    "%25eth0",
    "xn--",
    "\u00ad",
    "\uff0e",
    "65536",
    "080",
  ],
  check(bytes) {
    const text = bytes.toString();
    const read = caught(() => parseAbsoluteTarget(text), ProxyError);
    if ("refusal" in read) return { outcome: wordsOf(read.refusal) };
    const { destination, path } = read.value;
    // A path is passed on as it came; what others make of dots in it is the business of who reads paths.
    const isWhole = path.startsWith("/") && `${text}/`.includes(path.slice(1));
    const problem = isWhole ? urlProblem(text, destination) : `path ${path}`;
    return {
      outcome: `${destination.scheme} ${String(destination.isAddress)}`,
      problem,
    };
  },
};

const authority: Target = {
  name: "authority",
  covers: ["/src/net/destination.ts", "/src/net/address.ts"],
  seeds: texts(
    "example.com:443",
    "[::ffff:127.0.0.1]:80",
    "1.2.3.4:1",
    "a_b.example.:65535",
    "2130706433:80",
    "[fe80::1%25eth0]:1",
    "0300.1:80",
    "a:0",
    ":80",
  ),
  words: [
    ":",
    "[",
    "]",
    ".",
    "::",
    "ffff",
    "0x7f",
    "0177",
    "%",
    "@",
    "/",
    " ",
    "\t",
    "\0",
    "\u3002",
    "xn--",
    "443",
    "00080",
    "-",
  ],
  check(bytes) {
    const text = bytes.toString();
    const read = caught(() => parseAuthority(text, "https"), ProxyError);
    if ("refusal" in read) return { outcome: wordsOf(read.refusal) };
    const one = read.value;
    const again = parseAuthority(one.authority, "https");
    const outcome = `${String(one.isAddress)} ${String(one.port).length}`;
    if (again.host !== one.host || again.port !== one.port)
      return { outcome, problem: `read again it is ${again.authority}` };
    if (one.isAddress !== (parseAddress(one.host) !== undefined))
      return { outcome, problem: "an address by one reader alone" };
    return { outcome, problem: urlProblem(`https://${text}/`, one) };
  },
};

const path: Target = {
  name: "path",
  covers: ["/src/http/path.ts", "/src/http/canonical-target.ts"],
  seeds: texts(
    "/",
    "/a/b",
    "/a/../b",
    "/a/%2e%2e/b",
    "/a;x=1/../b",
    "/a%2fb",
    "/%252e%252e/",
    "//a/b",
    "/a/./b/?q=/../",
    "/\\..\\b",
    "/a%00",
    "/%c3%a9",
  ),
  words: [
    "/",
    "//",
    "..",
    ".",
    "%2e",
    "%2f",
    "%5c",
    "\\",
    ";",
    ";a=b",
    "%25",
    "%00",
    "?",
    "%",
    "%zz",
    "%c0%ae",
    "\u00e9",
  ],
  check(bytes) {
    const text = `/${bytes.toString("latin1")}`;
    const read = readPath(text);
    const outcome = `${read.readings.length} ${read.remote.length} ${read.ambiguous ?? "plain"} ${String(read.climbs)}`;
    const canonical = canonicalTarget(text);
    if (canonical.kind === "fault") return { outcome: `${outcome} ${canonical.fault}` };
    // Decoded once more it may be another path, which a further server would see: that has to be said.
    const again = canonicalTarget(canonical.path);
    // What is spelt with percent signs is up to three times as long.
    const isSame =
      again.kind === "target" ? again.path === canonical.path : again.fault === "path-too-long";
    const isSaid = isSame || canonical.ambiguous !== undefined;
    return {
      outcome: `${outcome} target`,
      problem: isSaid ? undefined : `read again it is ${JSON.stringify(again)}`,
    };
  },
};

const query: Target = {
  name: "query",
  covers: ["/src/policy/request-facts.ts"],
  seeds: texts(
    "a=b&c=d",
    "a=1&a=2",
    "a+b=%20&=x",
    "a;b=c",
    "%zz=1",
    "a=%c3%28",
    "a[b]=c&a%5Bb%5D=d",
  ),
  words: ["&", "=", "+", ";", "%20", "%26", "%3d", "%", "%zz", "%00", "a=", "#", "?"],
  check(bytes) {
    const text = bytes.toString("latin1");
    const ours = parseQuery(text);
    if (ours === "unreadable") return { outcome: "unreadable" };
    const theirs = new Map<string, string[]>();
    for (const [name, value] of new URLSearchParams(text))
      theirs.set(name, [...(theirs.get(name) ?? []), value]);
    const missing = [...theirs].find(([name, values]) =>
      values.some((value) => !(ours.get(name) ?? []).includes(value)),
    );
    return {
      outcome: `${Math.min(4, ours.size)} names`,
      problem: missing === undefined ? undefined : `${JSON.stringify(missing)} is not in ours`,
    };
  },
};

const identifiers: Target = {
  name: "identifiers",
  covers: ["/src/spiffe/spiffe-id.ts", "/src/http/trace-context.ts"],
  seeds: texts(
    "spiffe://example.org/ns/a/sa/b",
    "spiffe://example.org",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
  ),
  words: ["spiffe://", "/", ".", "..", "%2f", "?", "#", ":", "@", "-", "00", "ff", "A"],
  check(bytes) {
    const text = bytes.toString("latin1");
    const id = parseSpiffeId(text);
    const trace = parseTraceparent(text);
    return {
      outcome: `${typeof id === "string" ? id.replaceAll(/"[^"]*"/g, "") : "id"} ${String(trace !== undefined)}`,
    };
  },
};

export const targets: readonly Target[] = [absolute, authority, path, query, identifiers];
