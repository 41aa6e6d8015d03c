/** Names to addresses: once per dial, bounded in time, never cached beyond the dial it was made for. */
import { lookup, Resolver as DnsResolver } from "node:dns/promises";
import { ProxyError, messageOf } from "../errors.ts";
import type { AbortSource } from "../net/abort-source.ts";

/** Turns a canonical host name into the textual addresses that it stands for. */
export interface Resolver {
  /** Rejects with `upstream.unresolvable` when the name has no address or the time is up. */
  resolve(host: string, signal: AbortSource): Promise<readonly string[]>;
  /** The addresses that the file gives a name, which no server is asked for. */
  fixed?(host: string): readonly string[] | undefined;
}

/** Where names are looked up. */
export interface ResolverOptions {
  readonly timeoutMs: number;
  /** DNS servers as `address[:port]`; empty: the system's resolver, which also reads /etc/hosts. */
  readonly servers: readonly string[];
  /** Fixed answers that no server is asked for. */
  readonly hosts: ReadonlyMap<string, readonly string[]>;
}

/** A name whose answer holds more addresses than this is cut: nobody dials hundreds. */
const maxAddresses = 16;

/** Makes the resolver that the options describe. */
export function createResolver(options: ResolverOptions): Resolver {
  const ask = options.servers.length === 0 ? askSystem : askServers(options);
  return {
    fixed: (host) => options.hosts.get(host),
    async resolve(host, signal) {
      const fixed = options.hosts.get(host);
      if (fixed !== undefined) return fixed;
      const addresses = await withinTime(ask(host), host, options.timeoutMs, signal);
      if (addresses.length === 0) throw unresolvable(host, "it has no address");
      return addresses.slice(0, maxAddresses);
    },
  };
}

async function askSystem(host: string): Promise<string[]> {
  const answers = await lookup(host, { all: true, verbatim: true });
  return answers.map((answer) => answer.address);
}

function askServers(options: ResolverOptions): (host: string) => Promise<string[]> {
  return async (host) => {
    const resolver = new DnsResolver({ timeout: options.timeoutMs, tries: 2 });
    resolver.setServers([...options.servers]);
    const answers = await Promise.allSettled([resolver.resolve4(host), resolver.resolve6(host)]);
    const found = answers.flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
    const failed = answers.find((answer) => answer.status === "rejected");
    if (found.length === 0 && failed?.status === "rejected") throw failed.reason;
    return found;
  };
}

/** getaddrinfo cannot be cancelled; the caller is let go instead. */
async function withinTime(
  answer: Promise<string[]>,
  host: string,
  timeoutMs: number,
  signal: AbortSource,
): Promise<string[]> {
  let timer: NodeJS.Timeout | undefined;
  let onAbort: (() => void) | undefined;
  const limit = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(unresolvable(host, `no answer in ${timeoutMs} ms (egress.resolve_timeout)`)),
      timeoutMs,
    );
    onAbort = () => reject(new ProxyError("pipeline.cancelled", "the client went away"));
    if (signal.aborted) onAbort();
    else signal.addEventListener("abort", onAbort, { once: true });
  });
  try {
    return await Promise.race([answer, limit]);
  } catch (error) {
    if (error instanceof ProxyError) throw error;
    throw unresolvable(host, messageOf(error), error);
  } finally {
    clearTimeout(timer);
    if (onAbort !== undefined) signal.removeEventListener("abort", onAbort);
  }
}

function unresolvable(host: string, why: string, cause?: unknown): ProxyError {
  return new ProxyError("upstream.unresolvable", `${host} could not be resolved: ${why}`, {
    cause,
  });
}
