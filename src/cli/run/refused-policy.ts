/** The smallest addition to a policy that would allow what a run was refused, from the lines of the flow log. */
import { canonicalTarget } from "../../http/canonical-target.ts";
import { type Destination, parseAuthority } from "../../net/destination.ts";
import { DenialAggregate } from "../../policy/aggregate.ts";
import { suggest } from "../../policy/suggest.ts";
import { suggestionText } from "../../policy/suggestion-text.ts";

type Line = Readonly<Record<string, unknown>>;

/** Distinct requests that are kept for one host. */
const maxSamples = 1_000;

/** Hears of every flow, and keeps what was refused. */
export class RefusedPolicy {
  readonly #asked = new DenialAggregate({ maxSamples });
  /** What the guard of addresses refused and may be told to let through. */
  readonly #addresses = new Set<string>();

  /** Takes a log line; only what the command sent is looked at. */
  hear(line: Line): void {
    if (line["msg"] !== "flow" || line["direction"] !== "outbound") return;
    if (line["outcome"] !== "denied") return;
    const place = placeOf(line);
    if (place === undefined) return;
    const { host, port } = place;
    const address = guardedAddress(line, host);
    if (address !== undefined) {
      if (this.#addresses.size < mostOptions) this.#addresses.add(address);
      return;
    }
    const requests = requestsOf(line);
    const denial = { host, port, code: "endpoint-not-allowed" } as const;
    if (requests.length === 0) this.#asked.record(denial, 0);
    for (const request of requests) this.#asked.record({ ...denial, ...request }, 0);
  }

  /** Options of `run` that would allow it for once; none for what no policy may open. */
  options(): readonly string[] {
    const places = suggest(this.#asked.summaries()).entries.flatMap(({ endpoints }) => endpoints);
    const hosts = places.map(({ host, port }) => `--allow ${bracketed(host)}:${port}`);
    const addresses = [...this.#addresses].map((address) => `--allow-ip ${address}`);
    return [...(hosts.length > mostOptions ? [] : hosts), ...addresses];
  }

  /** Lines of a policy file; undefined where nothing was refused. */
  text(): string | undefined {
    const suggestion = suggest(this.#asked.summaries());
    const { entries, refused } = suggestion;
    return entries.length === 0 && refused.length === 0 ? undefined : suggestionText(suggestion);
  }
}

/** More are a policy and no command line. */
const mostOptions = 20;

/** The address that the guard refused, where `egress.allow_ips` could open it. */
function guardedAddress({ code, reason }: Line, host: string): string | undefined {
  if (code !== "upstream.address-forbidden" || typeof reason !== "string") return undefined;
  if (!reason.includes("egress.allow_ips") || reason.includes("class metadata")) return undefined;
  return /\(([0-9a-f:.]+)\) is a forbidden address/.exec(reason)?.[1] ?? host;
}

function bracketed(host: string): string {
  return host.includes(":") ? `[${host}]` : host;
}

function placeOf(line: Line): Destination | undefined {
  const { host, transport } = line;
  if (typeof host !== "string") return undefined;
  try {
    return parseAuthority(host, transport === "bridge" ? "https" : "http");
  } catch {
    return undefined;
  }
}

/** What is known of single requests; none where nobody looked into the tunnel. */
function requestsOf(line: Line): readonly { readonly method: string; readonly path: string }[] {
  const { method, path, asked } = line;
  // Of a CONNECT, or of a connection that was captured.
  const isTunnel = path === undefined;
  const words = isTunnel
    ? Array.isArray(asked)
      ? asked
      : []
    : typeof path === "string"
      ? [`${String(method)} ${path}`]
      : [];
  return words.flatMap((word) => {
    const [, verb, target] = /^(\S+) (\S+)$/.exec(String(word)) ?? [];
    if (verb === undefined || target === undefined) return [];
    const read = canonicalTarget(target, { allowEncodedSlash: true });
    return [{ method: verb, path: read.kind === "target" ? read.path : target }];
  });
}
