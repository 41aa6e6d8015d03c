/** When sessions began: the same moment for all replicas. */
import { BoundedMap } from "../../bounded-map.ts";
import type { Soon, StateStore } from "../../pipeline/plugin.ts";
import type { Place } from "./limit.ts";

const maxKnown = 10_000;
/** Of the time that the store remembers a session after its last use: a use within it is not told. */
const untoldPart = 0.1;

interface Beginning {
  readonly at: number;
  /** From when on the store is told that it is in use. */
  readonly renewAt: number;
}

/** The beginnings that one instance has asked for. */
export class Ages {
  readonly #store: StateStore;
  readonly #known = new BoundedMap<string, Beginning>(maxKnown);

  constructor(store: StateStore) {
    this.#store = store;
  }

  /** Whole seconds since the first time that anybody asked; rejects where the store is away. */
  secondsOf(place: Place, now: number): Soon<number> {
    const known = this.#known.get(place.key);
    if (known !== undefined && known.renewAt > now) return secondsBetween(known.at, now);
    return this.#find(place, now).then((at) => {
      this.#known.renew(place.key, { at, renewAt: now + (place.ttlMs ?? Infinity) * untoldPart });
      return secondsBetween(at, now);
    });
  }

  /** The same, without beginning; 0 where nobody has asked yet. */
  async read(key: string, now: number): Promise<number> {
    const at = Number((await this.#store.get(key)) ?? now);
    return Number.isFinite(at) ? secondsBetween(at, now) : 0;
  }

  async #find({ key, ttlMs }: Place, now: number): Promise<number> {
    if (await this.#store.compareAndSet(key, undefined, String(now), ttlMs)) return now;
    const text = await this.#store.get(key);
    const at = Number(text);
    // It ended between the two.
    if (text === undefined || !Number.isFinite(at)) return now;
    await this.#store.compareAndSet(key, text, text, ttlMs);
    return at;
  }
}

function secondsBetween(from: number, to: number): number {
  return Math.max(0, Math.floor((to - from) / 1_000));
}
