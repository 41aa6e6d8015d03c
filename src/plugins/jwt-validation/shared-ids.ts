/** Ids that are used up in the store of `state`. */
import type { SharedIds } from "../../oauth/seen-once.ts";
import type { PluginDeps } from "../../pipeline/plugin.ts";

/** Undefined where nothing is shared. With `local` what this process remembers counts while the store is away. */
export function sharedIds(
  deps: PluginDeps,
  kind: string,
  whenAway: "refuse" | "local",
): SharedIds | undefined {
  const { store, isKept } = deps.state;
  if (!isKept) return undefined;
  return {
    take: async (digest, lifetimeMs) => {
      try {
        return await store.compareAndSet(`${kind}:${digest}`, undefined, "", lifetimeMs);
      } catch (error) {
        deps.count("state_away");
        if (whenAway === "local") return true;
        throw error;
      }
    },
  };
}
