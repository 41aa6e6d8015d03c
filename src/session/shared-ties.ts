/** Ties of messages to conversations and users in the store of `state`: what follows from a message may go through another replica. */
import { hash, randomBytes } from "node:crypto";
import { BoundedMap } from "../bounded-map.ts";
import type { Clock, StateStore } from "../pipeline/plugin.ts";
import type { SharedTie, Turn } from "./turn.ts";

/** What became of a question, or of what was told (`kept`); `away` where the store could not be asked. */
export type TieResult = "found" | "several" | "none" | "away" | "kept";

/** What a replica told, and the value under which it is known. */
export interface FoundTie {
  readonly shared: SharedTie;
  readonly key: string;
}

/** Options of {@link SharedTies}. */
export interface SharedTiesOptions {
  readonly store: StateStore;
  readonly ttlMs: number;
  /** Whether a message that could not be asked for is taken for nobody's; else what this process knows counts. */
  readonly refusesWhenAway: boolean;
  readonly clock?: Clock;
  onResult?(result: TieResult): void;
}

const maxPerKey = 4;
const maxTold = 8_192;
const maxTries = 5;
const longestTtlMs = 30 * 24 * 3_600_000;

/** The ties of one process and of its replicas. */
export class SharedTies {
  readonly #options: SharedTiesOptions;
  readonly #process = randomBytes(9).toString("base64url");
  readonly #ttlMs: number;
  readonly #clock: Clock;
  /** When a message was told of under a value, so that the next of many that share it need not. */
  readonly #told = new BoundedMap<string, number>(maxTold);

  constructor(options: SharedTiesOptions) {
    this.#options = options;
    this.#ttlMs = Math.min(options.ttlMs, longestTtlMs);
    this.#clock = options.clock ?? Date;
  }

  get refusesWhenAway(): boolean {
    return this.#options.refusesWhenAway;
  }

  /** The id under which replicas know a message. */
  idOf({ of, id }: Turn): string {
    return of?.id ?? `${this.#process} ${id}`;
  }

  /** Tells of a message under the values that it shares with others, as it is now. */
  async tell(keys: readonly string[], turn: Turn, intent = turn.intent): Promise<void> {
    const tie: SharedTie = { ...turn.tie, id: this.idOf(turn), intent };
    const results = await Promise.allSettled(keys.map((key) => this.#add(keyOf(key), tie)));
    const isAway = results.some(({ status }) => status === "rejected");
    this.#options.onResult?.(isAway ? "away" : "kept");
  }

  /** Whether a message has to be told of under a value: it was not, or long ago. */
  isNews(key: string, turn: Turn): boolean {
    const now = this.#clock.now();
    const place = `${key} ${this.idOf(turn)}`;
    if (now - (this.#told.get(place) ?? -Infinity) < this.#ttlMs / 2) return false;
    this.#told.renew(place, now);
    return true;
  }

  /** The message that others follow from which share these values; the first value decides that is not ambiguous. */
  async find(keys: readonly string[]): Promise<FoundTie | "none" | "several" | "away"> {
    const found = await this.#find(keys);
    this.#options.onResult?.(typeof found === "string" ? found : "found");
    return found;
  }

  async #find(keys: readonly string[]): Promise<FoundTie | "none" | "several" | "away"> {
    let result: "none" | "several" = "none";
    try {
      const texts = keys.map(async (key) => this.#options.store.get(keyOf(key)));
      for (const [at, text] of (await Promise.all(texts)).entries()) {
        const found = unambiguous(tiesOf(text));
        if (typeof found !== "string") return { shared: found, key: keys[at] ?? "" };
        if (found === "several") result = found;
      }
      return result;
    } catch {
      return "away";
    }
  }

  async #add(key: string, tie: SharedTie): Promise<void> {
    const { store } = this.#options;
    for (let tries = 0; tries < maxTries; tries += 1) {
      const before = await store.get(key);
      const others = tiesOf(before).filter((one) => one.id !== tie.id && !isReplaced(one, tie));
      const after = JSON.stringify([...others.slice(1 - maxPerKey), tie]);
      if (await store.compareAndSet(key, before, after, this.#ttlMs)) return;
    }
  }
}

/** A message that is over tells nothing that a later one of the same conversation does not. */
function isReplaced(tie: SharedTie, by: SharedTie): boolean {
  return !tie.isOpen && (tie.sessionId === undefined || tie.sessionId === by.sessionId);
}

/** The one conversation whose response is pending, or, when none is, the only one that ever had the value. */
function unambiguous(ties: readonly SharedTie[]): SharedTie | "none" | "several" {
  const open = ties.filter(({ isOpen }) => isOpen);
  const candidates = open.length > 0 ? open : ties;
  const conversations = new Set(candidates.map(({ sessionId, id }) => sessionId ?? ` ${id}`));
  return conversations.size > 1 ? "several" : (candidates.at(-1) ?? "none");
}

/** Values are credentials' digests, ids of traces and of sessions: nobody reads them in the store. */
function keyOf(value: string): string {
  return `tie:${hash("sha256", value, "base64url")}`;
}

/** What does not look like a tie is none. */
function tiesOf(text: string | undefined): SharedTie[] {
  if (text === undefined) return [];
  const value: unknown = JSON.parse(text);
  return Array.isArray(value) ? value.filter((one): one is SharedTie => isTie(one)) : [];
}

function isTie(value: unknown): value is SharedTie {
  if (typeof value !== "object" || value === null) return false;
  const { id, startedAt } = value as Partial<SharedTie>;
  return typeof id === "string" && typeof startedAt === "number";
}
