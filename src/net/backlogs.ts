/** Memory that waits for peers who do not read: counted, bounded, and had back from whoever has not read for longest. */
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { Slots } from "./slots.ts";

/** A connection, or a pair of them, that may hold bytes because its peer does not take them. */
export interface SlowPeer {
  /** Bytes that wait in this process for the peer. */
  heldBytes(): number;
  /** A number that changes whenever the peer takes some. */
  takenBytes(): number;
  /** Lets the peer go, because its memory is needed: nothing is held afterwards. */
  letGo(): void;
}

/** What the memory counts against. */
export interface Ledger {
  readonly limitBytes: number;
  readonly usedBytes: number;
  /** Books what is held already, whether there is room or not. */
  book(change: number): void;
  /** Says who can make room when there is none. */
  onShort(makeRoom: (bytes: number) => void): void;
}

/** What a peer that still reads may pause; also how often everybody is looked at for whom something waits. */
const graceMs = 250;
/** So far above the limit nobody has a grace. */
const slackBytes = 67_108_864;
/** Without room everybody is looked at this often, at most. */
const lookEveryMs = 25;

/** The backlogs of one process. */
export class Backlogs {
  readonly #ledger: Ledger;
  readonly #onLetGo: () => void;
  /** Those with bytes that wait. */
  readonly #waiting = new Slots<Backlog>();
  #lookedAt = Number.NEGATIVE_INFINITY;
  #timer: NodeJS.Timeout | undefined;

  constructor(ledger: Ledger, onLetGo: () => void) {
    this.#ledger = ledger;
    this.#onLetGo = onLetGo;
    ledger.onShort((bytes) => this.#makeRoom(bytes));
  }

  /** Books what the peer holds by now. */
  count(backlog: Backlog): void {
    const change = backlog.look(performance.now());
    if (change === 0) return;
    this.#ledger.book(change);
    if (backlog.bytes === 0) this.#forget(backlog);
    else backlog.slot ??= this.#waiting.add(backlog);
    if (change < 0) return;
    this.#timer ??= setInterval(() => this.#tick(), graceMs).unref();
    this.#makeRoom(0);
  }

  /** Nothing is held any more. */
  drop(backlog: Backlog): void {
    this.#forget(backlog);
    this.#ledger.book(backlog.finish());
  }

  #forget(backlog: Backlog): void {
    if (backlog.slot !== undefined) this.#waiting.delete(backlog.slot);
    backlog.slot = undefined;
  }

  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  #tick(): void {
    this.#look(performance.now());
    if (this.#waiting.size === 0) this.close();
    this.#makeRoom(0);
  }

  #look(now: number): void {
    for (const backlog of this.#waiting) {
      this.#ledger.book(backlog.look(now));
      if (backlog.bytes === 0) this.#forget(backlog);
    }
  }

  /** Lets peers go, those first that took nothing for longest, until so many bytes are free. */
  #makeRoom(bytes: number): void {
    const missing = (): number => this.#ledger.usedBytes + bytes - this.#ledger.limitBytes;
    const now = performance.now();
    if (missing() <= 0 || now - this.#lookedAt < lookEveryMs) return;
    this.#lookedAt = now;
    this.#look(now);
    const hasGrace = missing() < slackBytes;
    const idle = [...this.#waiting]
      .filter((one) => !hasGrace || now - one.sinceMs >= graceMs)
      .sort((one, other) => one.sinceMs - other.sinceMs);
    // Whoever wants more than there is to be had gains nothing by it.
    if (bytes > 0 && idle.reduce((sum, one) => sum + one.bytes, 0) < missing()) return;
    for (const backlog of idle) {
      if (missing() <= 0) return;
      this.drop(backlog);
      backlog.peer.letGo();
      this.#onLetGo();
    }
  }
}

/** The two sides of a tunnel, which hold for each other. */
export class PairOfPeers implements SlowPeer {
  readonly #streams: readonly [Duplex, Duplex];
  readonly #cut: () => void;

  constructor(client: Duplex, upstream: Duplex, cut: () => void) {
    this.#streams = [client, upstream];
    this.#cut = cut;
  }

  heldBytes(): number {
    return this.#sum((stream) => (stream.destroyed ? 0 : stream.writableLength));
  }

  takenBytes(): number {
    return this.#sum((stream) => writtenTo(stream) - stream.writableLength);
  }

  letGo(): void {
    this.#cut();
  }

  #sum(of: (stream: Duplex) => number): number {
    const [client, upstream] = this.#streams;
    return of(client) + of(upstream);
  }
}

/** What one peer holds. */
export class Backlog {
  readonly peer: SlowPeer;
  readonly #backlogs: Backlogs;
  #isOver = false;
  #taken: number;
  bytes = 0;
  /** While something waits; for {@link Backlogs}. */
  slot: number | undefined;
  /** When the peer took bytes last, as far as anybody saw. */
  sinceMs = performance.now();

  constructor(backlogs: Backlogs, peer: SlowPeer) {
    this.peer = peer;
    this.#backlogs = backlogs;
    this.#taken = peer.takenBytes();
  }

  /** Call it when the peer may hold more or less than before. */
  note(): void {
    this.#backlogs.count(this);
  }

  /** The peer has disconnected, or has read everything. */
  close(): void {
    this.#backlogs.drop(this);
  }

  /** What is held now compared with what was; for {@link Backlogs}. */
  look(now: number): number {
    if (this.#isOver) return 0;
    const taken = this.peer.takenBytes();
    if (taken !== this.#taken) {
      this.#taken = taken;
      this.sinceMs = now;
    }
    const before = this.bytes;
    this.bytes = this.peer.heldBytes();
    return this.bytes - before;
  }

  /** The same once nothing is held any more. */
  finish(): number {
    const { bytes } = this;
    this.#isOver = true;
    this.bytes = 0;
    return -bytes;
  }
}

/** A stream of HTTP/2 does not say: there only what waits shows whether bytes are taken. */
function writtenTo(stream: Duplex): number {
  return stream instanceof Socket ? stream.bytesWritten : 0;
}
