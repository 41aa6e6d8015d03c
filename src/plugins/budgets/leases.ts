/**
 * Leases: a share of what is left of a budget is taken from the store at once, and messages take theirs from it here.
 *
 * What is leased is counted in the store, so that replicas never take more together than there is. What a process does not
 * use it gives back; until then the others find less than there is.
 */
import type { Added, Addition, Soon, StateStore } from "../../pipeline/plugin.ts";

/** An addition that may be answered from a lease. */
export interface LeasedAddition extends Addition {
  /** The share of what is left that is leased; 0 or absent: none. */
  readonly lease?: number | undefined;
}

interface Lease {
  readonly ttlMs: number | undefined;
  /** Of what was taken, what no message has. */
  left: number;
  /** The counter as the store said last, what is left included. */
  value: number;
  /** Since it was looked through last. */
  isUsed: boolean;
  /** More is being taken. */
  isAsking: boolean;
  /** Calls that have some of it and are not answered yet. */
  pending: number;
}

/** One addition of a call, and how it is made. */
interface Part {
  readonly addition: LeasedAddition;
  readonly lease: Lease | undefined;
  /** The lease had all of it. */
  readonly isTaken: boolean;
  /** What the lease had, and gave up for this call. */
  readonly given: number;
  /** What is leased beside it. */
  share: number;
}

const maxLeases = 10_000;
const idleMs = 1_000;
/** Less than this many messages' worth saves no questions. */
const leastMessages = 2;

/** The leases that this process has of one store. */
export class Leases {
  readonly #store: Pick<StateStore, "add">;
  readonly #leases = new Map<string, Lease>();
  #timer: NodeJS.Timeout | undefined;

  constructor(store: Pick<StateStore, "add">) {
    this.#store = store;
  }

  /** As a store does it; counters are as this process knows them. */
  add(additions: readonly LeasedAddition[]): Soon<Added> {
    if (this.#leases.size === 0 && additions.every(({ lease = 0 }) => lease === 0)) {
      return this.#store.add(additions);
    }
    const parts = additions.map((addition) => this.#take(addition));
    if (parts.every(({ isTaken }) => isTaken)) {
      return { refusedAt: undefined, values: parts.map(({ lease }) => valueOf(lease)) };
    }
    return this.#ask(parts);
  }

  /** What is leased of a counter, and no message has. */
  leftOf(key: string): number {
    return this.#leases.get(key)?.left ?? 0;
  }

  /** Gives everything back that no message has. */
  async close(): Promise<void> {
    clearTimeout(this.#timer);
    await Promise.all([...this.#leases].map(([key, lease]) => this.#giveBack(key, lease)));
  }

  /** Takes it from the lease where there is enough; what goes back goes back there. */
  #take(addition: LeasedAddition): Part {
    const lease = this.#leases.get(addition.key);
    if (lease === undefined) return { addition, lease, isTaken: false, given: 0, share: 0 };
    lease.isUsed = true;
    const isTaken = lease.left > 0 && lease.left >= addition.by;
    const given = isTaken ? addition.by : lease.left;
    lease.left -= given;
    return { addition, lease, isTaken, given, share: 0 };
  }

  async #ask(parts: readonly Part[]): Promise<Added> {
    const open = parts.filter(({ isTaken }) => !isTaken);
    for (const part of open) part.share = shareFor(part);
    for (const { lease, share } of parts) {
      if (lease === undefined) continue;
      lease.pending += 1;
      if (share > 0) lease.isAsking = true;
    }
    const isAsking = open.some(({ share }) => share > 0);
    try {
      let added = await this.#store.add(open.map(additionFor));
      if (added.refusedAt !== undefined && isAsking) {
        // Others have taken some since: whether there is enough for this message alone.
        endAsking(open);
        added = await this.#store.add(open.map(additionFor));
      }
      const isMade = added.refusedAt === undefined;
      for (const [at, part] of open.entries()) this.#learn(part, added.values[at] ?? 0, isMade);
      if (!isMade) undo(parts);
      return merged(parts, open, added);
    } catch (error) {
      undo(parts);
      throw error;
    } finally {
      endAsking(open);
      for (const { lease } of parts) if (lease !== undefined) lease.pending -= 1;
    }
  }

  #learn({ addition, lease: known, share }: Part, value: number, isMade: boolean): void {
    const { key, lease: wanted = 0, ttlMs } = addition;
    if (known !== undefined) {
      known.value = value;
      if (isMade) known.left += share;
    } else if (wanted > 0 && this.#leases.size < maxLeases && !this.#leases.has(key)) {
      const lease = { ttlMs, left: 0, value, isUsed: true, isAsking: false, pending: 0 };
      this.#leases.set(key, lease);
      this.#lookThroughSoon();
    }
  }

  #lookThroughSoon(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      for (const [key, lease] of this.#leases) {
        if (!lease.isUsed && lease.pending === 0) void this.#giveBack(key, lease);
        lease.isUsed = false;
      }
      if (this.#leases.size > 0) this.#lookThroughSoon();
    }, idleMs).unref();
  }

  async #giveBack(key: string, lease: Lease): Promise<void> {
    const { left, ttlMs } = lease;
    this.#leases.delete(key);
    if (left <= 0) return;
    lease.left = 0;
    try {
      await this.#store.add([{ key, by: -left, ttlMs }]);
    } catch {
      // Tried again; a lease that was made meanwhile has it.
      const kept = this.#leases.get(key) ?? lease;
      kept.left += left;
      this.#leases.set(key, kept);
      this.#lookThroughSoon();
    }
  }
}

/** How much to take beyond what the message takes: none where nothing is known yet, or little is left. */
function shareFor({ addition, lease }: Part): number {
  const { by, below, lease: share = 0 } = addition;
  if (share === 0 || below === undefined || by <= 0 || lease === undefined || lease.isAsking) {
    return 0;
  }
  const most = Math.floor((below - lease.value) * share);
  return most >= leastMessages * by ? most - by : 0;
}

function endAsking(parts: readonly Part[]): void {
  for (const part of parts) {
    if (part.share > 0 && part.lease !== undefined) part.lease.isAsking = false;
    part.share = 0;
  }
}

/** What the lease gave stands in the counter already. */
function additionFor({
  addition: { key, by, below, ttlMs, member },
  given,
  share,
}: Part): Addition {
  const isHere = below === undefined ? undefined : below + given;
  // What is leased has to be there as a whole.
  const bound = share === 0 || isHere === undefined ? isHere : isHere - by - share + 1;
  return { key, by: by - given + share, below: bound, ttlMs, member };
}

function undo(parts: readonly Part[]): void {
  for (const { lease, given } of parts) if (lease !== undefined) lease.left += given;
}

function valueOf(lease: Lease | undefined): number {
  return lease === undefined ? 0 : lease.value - lease.left;
}

function merged(parts: readonly Part[], open: readonly Part[], added: Added): Added {
  const values = parts.map((part) => {
    const { lease } = part;
    return lease === undefined ? (added.values[open.indexOf(part)] ?? 0) : valueOf(lease);
  });
  const refused = added.refusedAt === undefined ? undefined : open[added.refusedAt];
  return { refusedAt: refused === undefined ? undefined : parts.indexOf(refused), values };
}
