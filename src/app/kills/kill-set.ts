/**
 * What is stopped, as replicas agree on it without a clock: every order to stop has an id, and a release undoes the ids
 * that whoever gave it had seen. An order that is given meanwhile stands.
 */
import { randomBytes } from "node:crypto";
import { parseJsonObject } from "../../http/json-access.ts";
import { type Kill, killName } from "../../pipeline/kill-switch.ts";
import { maxKills, readKill } from "./kill-file.ts";

/** What replicas tell each other of one order. */
export interface Told {
  readonly kill: Kill;
  /** Of the order to stop, or of those that are undone. */
  readonly ids: readonly string[];
  readonly isReleased: boolean;
}

interface Entry {
  readonly kill: Kill;
  readonly ids: Set<string>;
}

const maxIds = 16;
const maxReleased = 100 * maxKills;

/** The orders that stand. */
export class KillSet {
  readonly #entries = new Map<string, Entry>();
  /** Ids that were undone: what is heard late stops nothing again. */
  readonly #released = new Set<string>();
  /** Stops all, in this process alone: what its own file or its replicas say cannot be followed otherwise. */
  fault: Kill | undefined;

  get kills(): readonly Kill[] {
    const kills = Array.from(this.#entries.values(), ({ kill }) => kill);
    return this.fault === undefined ? kills : [...kills.filter(isPart), this.fault];
  }

  get size(): number {
    return this.kills.length;
  }

  /** The ids by name, for the file. */
  get ids(): ReadonlyMap<string, readonly string[]> {
    return new Map(Array.from(this.#entries, ([name, { ids }]) => [name, [...ids]]));
  }

  has(name: string): boolean {
    return this.#entries.has(name) || (name === "all" && this.fault !== undefined);
  }

  /** A new order. */
  stop(kill: Kill): Told {
    const known = this.#entries.get(killName(kill));
    // Many orders for one thing are one.
    const ids =
      known !== undefined && known.ids.size >= maxIds
        ? [...known.ids]
        : [randomBytes(9).toString("base64url")];
    const told = { kill, ids, isReleased: false };
    this.take(told);
    return told;
  }

  /** Undoes what is known; undefined where nothing is. */
  release(name: string, at: number): Told | undefined {
    const entry = this.#entries.get(name);
    const kill = entry?.kill ?? (name === "all" ? this.fault : undefined);
    if (kill === undefined) return undefined;
    if (name === "all") this.fault = undefined;
    const told = { kill: { ...kill, at }, ids: [...(entry?.ids ?? [])], isReleased: true };
    this.take(told);
    return told;
  }

  /** Follows an order; false where it changes nothing. */
  take({ kill, ids, isReleased }: Told): boolean {
    const name = killName(kill);
    const entry = this.#entries.get(name);
    if (isReleased) {
      for (const id of ids) this.#forget(id);
      if (entry === undefined) return false;
      for (const id of ids) entry.ids.delete(id);
      return entry.ids.size === 0 && this.#entries.delete(name);
    }
    const standing = ids.filter((id) => !this.#released.has(id));
    if (standing.length === 0) return false;
    if (entry === undefined && this.#entries.size >= maxKills) {
      const reason = `more than ${maxKills} things are to be stopped`;
      this.fault = { scope: "all", value: "", reason, at: kill.at };
      return true;
    }
    const isNews = entry === undefined || entry.kill.reason !== kill.reason;
    const all = new Set([...(entry?.ids ?? []), ...standing]);
    this.#entries.set(name, { kill, ids: all });
    return isNews;
  }

  #forget(id: string): void {
    if (this.#released.size >= maxReleased) {
      for (const oldest of this.#released) {
        this.#released.delete(oldest);
        break;
      }
    }
    this.#released.add(id);
  }
}

function isPart({ scope }: Kill): boolean {
  return scope !== "all";
}

/** What was sealed or kept was written by a replica; another version may write more, or no ids. */
export function toldOf(
  text: string,
  known: ReadonlyMap<string, readonly string[]>,
): Told | undefined {
  const value = parseJsonObject(text);
  const kill = value?.["kill"] as Partial<Kill> | undefined;
  if (
    typeof kill?.scope !== "string" ||
    typeof kill.value !== "string" ||
    typeof kill.at !== "number"
  )
    return undefined;
  const read = readKill(kill.scope, kill.value);
  if (typeof read === "string") return undefined;
  const reason = typeof kill.reason === "string" ? { reason: kill.reason } : {};
  const isReleased = value?.["isReleased"] === true;
  const without = isReleased ? (known.get(killName(read)) ?? []) : [`at-${kill.at}`];
  const ids = idsOf(value?.["ids"]) ?? without;
  return { kill: { ...read, at: kill.at, ...reason }, ids, isReleased };
}

/** Undefined where they are none. */
export function idsOf(value: unknown): readonly string[] | undefined {
  if (!Array.isArray(value) || value.length > maxIds) return undefined;
  const ids = value.filter((id) => typeof id === "string" && /^[\w-]{1,64}$/.test(id)) as string[];
  return ids.length === value.length ? ids : undefined;
}
