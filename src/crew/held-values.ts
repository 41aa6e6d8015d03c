/** Values that the thread in control holds for plugins in all threads. */
import type { CarriedState } from "../app/carried-state.ts";
import { ProxyError } from "../errors.ts";
import type { PluginDeps } from "../pipeline/plugin.ts";
import { stateUnavailable } from "../state/store.ts";

/** A call of a method of such a value. */
export interface HeldCall {
  readonly key: string;
  readonly method: string;
  readonly args: readonly unknown[];
}

/** Gives such values to the plugins of another thread. */
export function heldBy(
  ask: (call: HeldCall, limitMs: number) => Promise<unknown>,
  usualLimitMs: number,
): PluginDeps["held"] {
  return (key, methods, _make, limitMs = usualLimitMs) =>
    Object.fromEntries(
      methods.map((method) => [
        method,
        async (...args: readonly unknown[]): Promise<unknown> => {
          try {
            return await ask({ key, method, args }, limitMs);
          } catch (error) {
            if (error instanceof ProxyError && error.code === "state.unavailable") throw error;
            throw stateUnavailable("the thread that holds it does not respond", error);
          }
        },
      ]),
    ) as never;
}

/** Makes the call on the value itself. */
export function callHeld(carried: CarriedState, { key, method, args }: HeldCall): unknown {
  const value = carried.peek(key) as
    Readonly<Record<string, ((...args: readonly unknown[]) => unknown) | undefined>> | undefined;
  const called = value?.[method];
  if (called === undefined) throw stateUnavailable("nobody holds it");
  return called.apply(value, [...args]);
}
