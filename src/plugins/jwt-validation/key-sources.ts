/** The sources of one issuer's keys in the threads of a process: what one of them has fetched, all have. */
import type { OperatorFetch } from "../../http/operator-fetch.ts";
import { JwksSource, type JwksSourceOptions, type OtherSources } from "../../oauth/jwks.ts";
import type { SharedAllowance } from "../../oauth/refetch-allowance.ts";
import { OnceForAll } from "../../pipeline/once-for-all.ts";
import { OtherThreads } from "../../pipeline/other-threads.ts";
import type { OperatorResponse, PluginDeps, StateStore } from "../../pipeline/plugin.ts";

/** The source of the keys at one place, and what it shares. */
export function keySource(
  deps: PluginDeps,
  place: string,
  options: Omit<JwksSourceOptions, "clock" | "others">,
): JwksSource {
  return new JwksSource({ ...options, clock: deps.clock, others: otherSources(deps, place) });
}

/** Undefined in a process with one thread. */
function otherSources({ isAlone, shared }: PluginDeps, place: string): OtherSources | undefined {
  if (isAlone) return undefined;
  let threads: OtherThreads | undefined;
  return {
    misses: allowance(shared, `jwks misses ${place}`),
    mismatches: allowance(shared, `jwks mismatches ${place}`),
    listen: (hear) => {
      threads = new OtherThreads(shared, `jwks ${place}`, hear);
    },
    say: async (document) => threads?.say(document),
    close: () => threads?.close(),
  };
}

function allowance(store: StateStore, key: string): SharedAllowance {
  return {
    take: async (most, intervalMs) => {
      try {
        const added = await store.add([{ key, by: 1, below: most, ttlMs: intervalMs }]);
        return added.refusedAt === undefined;
      } catch {
        return false;
      }
    },
    giveBack: (intervalMs) => {
      Promise.resolve(store.add([{ key, by: -1, ttlMs: intervalMs }])).catch(() => undefined);
    },
  };
}

/** Longest that the call of another thread is waited for. */
const otherCallMs = 10_000;

/** Threads that ask for one address at the same time share one call. */
export function sharedCall({ isAlone, shared }: PluginDeps, call: OperatorFetch): OperatorFetch {
  if (isAlone) return call;
  const calls = new OnceForAll(shared, "jwks");
  return async (url, request) => {
    let own: OperatorResponse | undefined;
    const text = await calls.othersOr(url, otherCallMs, async () => {
      own = await call(url, request);
      const { status, headers, body } = own;
      return { text: JSON.stringify([status, headers, body.toString("base64")]), keepMs: 0 };
    });
    if (own !== undefined) return own;
    if (text === undefined) return call(url, request);
    const [status, headers, body] = JSON.parse(text) as [
      number,
      OperatorResponse["headers"],
      string,
    ];
    return { status, headers, body: Buffer.from(body, "base64") };
  };
}
