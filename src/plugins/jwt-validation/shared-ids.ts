/** Ids that are used up in the store of `state`. */
import type { SharedIds } from "../../oauth/seen-once.ts";
import type { PluginDeps, StateStore } from "../../pipeline/plugin.ts";

/** Undefined where nothing is shared. With `local` what this process remembers counts while the store is away. */
export function sharedIds(
  deps: PluginDeps,
  kind: string,
  whenAway: "refuse" | "local",
): SharedIds | undefined {
  const { isAlone, shared, state } = deps;
  if (!state.isKept) return undefined;
  const takeFrom = async (store: StateStore, digest: string, ttlMs: number): Promise<boolean> =>
    store.compareAndSet(`${kind}:${digest}`, undefined, "", ttlMs);
  const inStore = async (digest: string, lifetimeMs: number): Promise<boolean> => {
    try {
      return await takeFrom(state.store, digest, lifetimeMs);
    } catch (error) {
      deps.count("state_away");
      if (whenAway === "local") return true;
      throw error;
    }
  };
  if (isAlone) return { take: inStore };
  return {
    // A store that is away or was emptied does not make the threads forget what they took.
    take: async (digest, lifetimeMs) => {
      const taken = [takeFrom(shared, digest, lifetimeMs), inStore(digest, lifetimeMs)];
      return (await Promise.all(taken)).every((isNew) => isNew);
    },
  };
}
