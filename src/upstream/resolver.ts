/** Names to addresses: once per dial, bounded in time and number, never cached beyond the dial it was made for. */
import { lookup, Resolver as DnsResolver } from "node:dns/promises";
import { messageOf, ProxyError } from "../errors.ts";
import { type AbortSource, cancelled } from "../net/abort-source.ts";
import { overloaded, type PlaceLimit, type Places, type Release } from "../net/places.ts";
import { SystemNames } from "../net/system-names.ts";

/** Turns a canonical host name into the textual addresses that it stands for. */
export interface Resolver {
  /**
   * Rejects with `upstream.unresolvable` when the name has no address or the time is up, and with `proxy.overloaded`
   * when there is no place for a further look-up.
   *
   * Without a caller the name is one of the operator's file, whose look-ups have places of their own.
   */
  resolve(host: string, signal: AbortSource, caller?: string): Promise<readonly string[]>;
  /** The addresses that the file gives a name, which no server is asked for. */
  fixed?(host: string): readonly string[] | undefined;
}

/** Look-ups that may run at once. */
export interface LookupPlaces {
  readonly callers: Places;
  readonly operator: Places;
}

/** Where names are looked up. */
export interface ResolverOptions {
  readonly timeoutMs: number;
  /** DNS servers as `address[:port]`; empty: those of the system, as its files say. */
  readonly servers: readonly string[];
  /** Fixed answers that no server is asked for. */
  readonly hosts: ReadonlyMap<string, readonly string[]>;
  readonly places: LookupPlaces;
  readonly systemNames?: SystemNames;
}

/** Further addresses of a name are dropped: hundreds are never dialled. */
const maxAddresses = 16;
/** What servers answer for a name that may still exist below another suffix, or as it stands. */
const isElsewhere = /^(?:ENOTFOUND|ENODATA|ESERVFAIL|EREFUSED|EFORMERR|EBADNAME)$/;

/** One look-up that runs. */
interface Lookup {
  readonly answer: Promise<readonly string[]>;
  /** Ends the look-up when no caller waits any more. */
  cancel(): void;
  /** Resolves once it holds no resource of the process any more. */
  readonly over: Promise<unknown>;
}

/** Makes the resolver that the options describe. */
export function createResolver(options: ResolverOptions): Resolver {
  const { hosts, places, timeoutMs, systemNames = new SystemNames() } = options;
  return {
    fixed: (host) => hosts.get(host),
    async resolve(host, signal, caller) {
      const fixed = hosts.get(host);
      if (fixed !== undefined) return fixed;
      const known = namesOf(options, systemNames)?.addressesOf(host);
      if (known !== undefined) return known.slice(0, maxAddresses);
      const pool = caller === undefined ? places.operator : places.callers;
      const release = await placeFor(pool, { caller: caller ?? "", host }, signal);
      const asked = ask(host, options, systemNames);
      void asked.over.finally(release);
      try {
        const addresses = await withinTime(asked.answer, host, timeoutMs, signal);
        if (addresses.length === 0) throw unresolvable(host, "it has no address");
        return addresses.slice(0, maxAddresses);
      } finally {
        asked.cancel();
      }
    },
  };
}

/** The system's files, where they are used. */
function namesOf({ servers }: ResolverOptions, systemNames: SystemNames): SystemNames | undefined {
  return servers.length === 0 && systemNames.isPlain ? systemNames : undefined;
}

function ask(host: string, options: ResolverOptions, systemNames: SystemNames): Lookup {
  const { servers, timeoutMs } = options;
  const isLocal = host === "localhost" || host.endsWith(".localhost");
  if (servers.length === 0 && (isLocal || !systemNames.isPlain)) return askSystem(host);
  // Two tries, the second with twice the time of the first, make the whole.
  const resolver = new DnsResolver({ timeout: Math.ceil(timeoutMs / 3), tries: 2 });
  if (servers.length > 0) resolver.setServers([...servers]);
  const names = servers.length > 0 ? [host] : systemNames.candidatesOf(host);
  let isCancelled = false;
  const answer = askServers(resolver, names, () => isCancelled);
  const over = answer.catch(() => undefined);
  const cancel = (): void => {
    isCancelled = true;
    resolver.cancel();
  };
  return { answer, cancel, over };
}

/** getaddrinfo cannot be cancelled: it keeps its thread, and so its place, to its own end. */
function askSystem(host: string): Lookup {
  const answer = lookup(host, { all: true, verbatim: true }).then((answers) =>
    answers.map(({ address }) => address),
  );
  return { answer, cancel: () => undefined, over: answer.catch(() => undefined) };
}

async function askServers(
  resolver: DnsResolver,
  names: readonly string[],
  isCancelled: () => boolean,
): Promise<readonly string[]> {
  let failure: unknown;
  for (const name of names) {
    if (isCancelled()) break;
    const answers = await Promise.allSettled([resolver.resolve4(name), resolver.resolve6(name)]);
    const found = answers.flatMap((answer) => (answer.status === "fulfilled" ? answer.value : []));
    if (found.length > 0) return found;
    const errors = answers.flatMap((answer) =>
      answer.status === "rejected" ? [answer.reason] : [],
    );
    failure ??= errors[0];
    const last = errors.find(({ code }: NodeJS.ErrnoException) => !isElsewhere.test(code ?? ""));
    if (last !== undefined) throw last;
  }
  if (failure !== undefined) throw failure;
  return [];
}

/** Waits for a place as long as a look-up may take. */
function placeFor(
  places: Places,
  { caller, host }: { readonly caller: string; readonly host: string },
  signal: AbortSource,
): Promise<Release> {
  return new Promise((resolve, reject) => {
    const settle = (done: () => void): void => {
      signal.removeEventListener("abort", onAbort);
      done();
    };
    let withdraw: () => void = () => undefined;
    const onAbort = (): void => {
      withdraw();
      settle(() => reject(cancelled()));
    };
    signal.addEventListener("abort", onAbort, { once: true });
    withdraw = places.take(
      { caller, destination: host },
      (release) => settle(() => resolve(release)),
      (limit) => settle(() => reject(overload(limit))),
    );
    if (signal.aborted) onAbort();
  });
}

async function withinTime(
  answer: Promise<readonly string[]>,
  host: string,
  timeoutMs: number,
  signal: AbortSource,
): Promise<readonly string[]> {
  let timer: NodeJS.Timeout | undefined;
  let onAbort: (() => void) | undefined;
  const limit = new Promise<never>((_, reject) => {
    const why = `no answer in ${timeoutMs} ms (egress.resolve_timeout)`;
    timer = setTimeout(() => reject(unresolvable(host, why)), timeoutMs);
    onAbort = () => reject(cancelled());
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

function overload(limit: PlaceLimit): ProxyError {
  return overloaded(
    limit === "caller"
      ? "this caller has too many names looked up at once (limits.max_name_lookups_per_caller)"
      : "too many names are looked up at once (limits.max_name_lookups)",
  );
}

function unresolvable(host: string, why: string, cause?: unknown): ProxyError {
  return new ProxyError("upstream.unresolvable", `${host} could not be resolved: ${why}`, {
    cause,
  });
}
