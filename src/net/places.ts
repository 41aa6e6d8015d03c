/** A bounded number of places that callers share fairly: connections to origins, look-ups of names. */
import { ProxyError } from "../errors.ts";
/** Which bound is in the way. */
export type PlaceLimit = "all" | "destination" | "caller";

/** For whom and for what a place is. */
export interface Claim {
  readonly caller: string;
  readonly destination: string;
}

/** The bounds of the places and of the wait for one. */
export interface PlacesOptions {
  readonly all: number;
  readonly perCaller: number;
  readonly perDestination: number;
  /** How long a claim may wait. */
  readonly waitMs: number;
  /** How many claims may wait; one caller has at most half of them. */
  readonly maxWaiting?: number;
  /** Called for every claim that is refused, for a counter and the log. */
  readonly onRefused?: (limit: PlaceLimit, claim: Claim) => void;
}

const defaultWaiting = 2_048;

/** Gives a place back; a second call does nothing. */
export type Release = () => void;

interface Waiting {
  readonly claim: Claim;
  readonly granted: (release: Release) => void;
  readonly refused: (limit: PlaceLimit) => void;
  timer?: NodeJS.Timeout;
}

/** Grants places: at once where there are some, else to one waiting caller after the other. */
export class Places {
  readonly #options: PlacesOptions;
  readonly #byCaller = new Map<string, number>();
  readonly #byDestination = new Map<string, number>();
  /** Claims that wait, by caller; the caller whose turn is next stands first. */
  readonly #queues = new Map<string, Set<Waiting>>();
  #used = 0;
  #waiting = 0;

  constructor(options: PlacesOptions) {
    this.#options = options;
  }

  get used(): number {
    return this.#used;
  }

  /** A place that is free now; undefined where it has to be waited for. */
  takeFree(claim: Claim): Release | undefined {
    return this.#limitOf(claim) === undefined ? this.#hold(claim) : undefined;
  }

  /** Calls one of the two back, perhaps before it returns. The function that is returned withdraws a claim that still waits. */
  take(claim: Claim, granted: Waiting["granted"], refused: Waiting["refused"]): () => void {
    const waiting: Waiting = { claim, granted, refused };
    const limit = this.#limitOf(claim);
    if (limit === undefined) granted(this.#hold(claim));
    else if (this.#mayWait(claim.caller)) this.#enqueue(waiting);
    else this.#refuse(waiting, limit);
    return () => this.#withdraw(waiting);
  }

  #limitOf({ caller, destination }: Claim): PlaceLimit | undefined {
    const { all, perCaller, perDestination } = this.#options;
    if (this.#used >= all) return "all";
    if ((this.#byDestination.get(destination) ?? 0) >= perDestination) return "destination";
    if ((this.#byCaller.get(caller) ?? 0) >= perCaller) return "caller";
    return undefined;
  }

  #mayWait(caller: string): boolean {
    const own = this.#queues.get(caller)?.size ?? 0;
    const most = this.#options.maxWaiting ?? defaultWaiting;
    if (own >= Math.ceil(most / 2)) return false;
    if (this.#waiting < most) return true;
    // The queue is full: whoever has the most in it makes room for somebody who has less.
    let longest: Set<Waiting> | undefined;
    for (const queue of this.#queues.values())
      if (longest === undefined || queue.size > longest.size) longest = queue;
    const last = [...(longest ?? [])].at(-1);
    if (last === undefined || longest === undefined || longest.size <= own + 1) return false;
    this.#withdraw(last);
    this.#refuse(last, "all");
    return true;
  }

  #enqueue(waiting: Waiting): void {
    const { caller } = waiting.claim;
    const queue = this.#queues.get(caller) ?? new Set();
    this.#queues.set(caller, queue.add(waiting));
    this.#waiting += 1;
    waiting.timer = setTimeout(() => {
      this.#withdraw(waiting);
      this.#refuse(waiting, this.#limitOf(waiting.claim) ?? "all");
    }, this.#options.waitMs);
  }

  #withdraw(waiting: Waiting): void {
    const { caller } = waiting.claim;
    const queue = this.#queues.get(caller);
    if (queue?.delete(waiting) !== true) return;
    clearTimeout(waiting.timer);
    this.#waiting -= 1;
    if (queue.size === 0) this.#queues.delete(caller);
  }

  #refuse({ claim, refused }: Waiting, limit: PlaceLimit): void {
    this.#options.onRefused?.(limit, claim);
    refused(limit);
  }

  #hold({ caller, destination }: Claim): Release {
    this.#used += 1;
    add(this.#byCaller, caller, 1);
    add(this.#byDestination, destination, 1);
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#used -= 1;
      add(this.#byCaller, caller, -1);
      add(this.#byDestination, destination, -1);
      if (this.#waiting > 0) this.#serve();
    };
  }

  /** Gives what is free to those who wait. */
  #serve(): void {
    while (this.#waiting > 0 && this.#used < this.#options.all) {
      const next = this.#next();
      if (next === undefined) return;
      const { caller } = next.claim;
      this.#withdraw(next);
      const rest = this.#queues.get(caller);
      if (rest !== undefined) {
        // Its turn is over.
        this.#queues.delete(caller);
        this.#queues.set(caller, rest);
      }
      next.granted(this.#hold(next.claim));
    }
  }

  #next(): Waiting | undefined {
    for (const [caller, queue] of this.#queues) {
      if ((this.#byCaller.get(caller) ?? 0) >= this.#options.perCaller) continue;
      for (const waiting of queue) if (this.#limitOf(waiting.claim) === undefined) return waiting;
    }
    return undefined;
  }
}

function add(counts: Map<string, number>, key: string, change: number): void {
  const count = (counts.get(key) ?? 0) + change;
  if (count === 0) counts.delete(key);
  else counts.set(key, count);
}

/** The fault of a request that found no place; `message` names the key of the bound. */
export function overloaded(message: string): ProxyError {
  return new ProxyError("proxy.overloaded", message, { headers: { "Retry-After": "5" } });
}
