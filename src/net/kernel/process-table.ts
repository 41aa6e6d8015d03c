/** Which processes hold a socket, and what they are: reads of /proc in slices that never hold up the event loop. */
import { readlinkSync } from "node:fs";
import { open, stat } from "node:fs/promises";
import { setImmediate } from "node:timers/promises";
import { BoundedMap } from "../../bounded-map.ts";
import { ProcessTree, isPid, type ProcessFacts, processFacts, topmostOf } from "./process-tree.ts";
import { names } from "./proc-folder.ts";
import { BatchedLookup } from "./batched-lookup.ts";

/** A process that holds a socket, and by which of its descriptors. */
export interface SocketHolder {
  readonly pid: number;
  readonly descriptor: string;
}

/** How a table is read. */
export interface ProcessTableOptions {
  /** `/proc`, or a copy of its shape. */
  readonly root: string;
  /** The process whose descendants are looked at first. */
  readonly agentPid?: number | undefined;
  /** Longest stretch of the event loop that one slice may take. */
  readonly sliceMs?: number;
  /** A search that takes longer is given up, with nothing found. */
  readonly searchMs?: number;
}

const defaultSliceMs = 1;
const defaultSearchMs = 2000;
const maxProcesses = 32_768;
const maxKnownPids = 64;
const maxRoots = 16;
/** Bytes of a command line that are read. */
const maxCommandLine = 16_384;

/** The processes of one /proc. */
export class ProcessTable {
  readonly root: string;
  readonly #agentPid: number | undefined;
  readonly #sliceMs: number;
  readonly #searchMs: number;
  readonly #lookup: BatchedLookup<number, readonly SocketHolder[]>;
  /** Owners of earlier connections, most recent last: they are looked at first. */
  readonly #known = new BoundedMap<number, true>(maxKnownPids);
  /** The processes at the head of their families. */
  readonly #roots = new BoundedMap<number, true>(maxRoots);

  constructor(options: ProcessTableOptions) {
    this.root = options.root;
    this.#agentPid = options.agentPid;
    this.#sliceMs = options.sliceMs ?? defaultSliceMs;
    this.#searchMs = options.searchMs ?? defaultSearchMs;
    this.#lookup = new BatchedLookup((wanted) => this.#search(wanted));
  }

  /**
   * Every process that holds a socket, lowest pid first.
   *
   * Looked at in this order: owners of earlier connections, the agent's tree, then everything. Where an owner is among
   * the first two, so is everybody who can have the socket by inheritance: its whole family is looked at before the
   * search ends. Rejects when the search was given up.
   */
  async holdersOf(inode: number): Promise<readonly SocketHolder[]> {
    const holders = (await this.#lookup.ask(inode)) ?? [];
    for (const { pid } of holders) {
      this.#known.renew(pid, true);
      // An owner may have ended before the next one is looked up; its parent usually has not.
      this.#roots.renew(topmostOf(this.root, pid), true);
    }
    return [...holders].sort((one, other) => one.pid - other.pid);
  }

  async #search(
    wanted: ReadonlySet<number>,
  ): Promise<ReadonlyMap<number, readonly SocketHolder[]>> {
    const found = new Map<number, SocketHolder[]>();
    const giveUpAt = performance.now() + this.#searchMs;
    let sliceEnd = performance.now() + this.#sliceMs;
    for (const _step of this.#steps(wanted, found)) {
      const now = performance.now();
      if (now < sliceEnd) continue;
      if (now > giveUpAt) throw new Error(`the owner was not found in ${this.#searchMs} ms`);
      await setImmediate();
      sliceEnd = performance.now() + this.#sliceMs;
    }
    return found;
  }

  /** The search as small steps. */
  *#steps(
    wanted: ReadonlySet<number>,
    found: Map<number, SocketHolder[]>,
  ): Generator<void, void, undefined> {
    const seen = new Set<number>();
    const look = function* (this: ProcessTable, pid: number): Generator<void, void, undefined> {
      if (seen.has(pid)) return;
      seen.add(pid);
      yield* this.#descriptors(pid, wanted, found);
    }.bind(this);
    for (const pid of [...this.#known.keys()].reverse()) yield* look(pid);
    const roots = [...this.#known.keys(), ...this.#roots.keys()];
    if (this.#agentPid !== undefined) roots.push(this.#agentPid);
    if (roots.length > 0) {
      const tree = new ProcessTree(this.root);
      yield* tree.read();
      for (const pid of tree.familiesOf(roots)) yield* look(pid);
    }
    if (found.size === wanted.size) return;
    for (const name of names(this.root)) {
      if (seen.size > maxProcesses) throw new Error("there are too many processes to look at");
      if (isPid(name)) yield* look(Number(name));
    }
  }

  *#descriptors(
    pid: number,
    wanted: ReadonlySet<number>,
    found: Map<number, SocketHolder[]>,
  ): Generator<void, void, undefined> {
    const folder = `${this.root}/${pid}/fd`;
    const held = new Set<number>();
    for (const descriptor of names(folder)) {
      yield;
      const inode = socketInode(`${folder}/${descriptor}`);
      if (inode === undefined || !wanted.has(inode) || held.has(inode)) continue;
      held.add(inode);
      const holders = found.get(inode);
      if (holders === undefined) found.set(inode, [{ pid, descriptor }]);
      else holders.push({ pid, descriptor });
    }
    yield;
  }

  /** True while the process still holds the socket by the same descriptor. */
  stillHolds({ pid, descriptor }: SocketHolder, inode: number): boolean {
    return socketInode(`${this.root}/${pid}/fd/${descriptor}`) === inode;
  }

  /** Parent and start time of a process; undefined when it has ended. */
  factsOf(pid: number): ProcessFacts | undefined {
    return processFacts(this.root, pid);
  }

  /** Names its user namespace; empty where the kernel has none, or does not tell. */
  userNamespaceOf(pid: number | "self"): string {
    try {
      return readlinkSync(`${this.root}/${pid}/ns/user`);
    } catch {
      return "";
    }
  }

  /**
   * The executable's path, or undefined when it cannot be read.
   *
   * The kernel appends " (deleted)" when the file is gone; a file can also be called so, and then it is there.
   */
  async executableOf(pid: number): Promise<string | undefined> {
    let path: string;
    try {
      // The kernel has the name in memory; where the file lies is not asked.
      path = readlinkSync(`${this.root}/${pid}/exe`);
    } catch {
      return undefined;
    }
    const suffix = " (deleted)";
    if (!path.endsWith(suffix)) return path;
    const isThere = await stat(`${this.root}/${pid}/root${path}`).then(
      () => true,
      () => false,
    );
    return isThere ? path : path.slice(0, -suffix.length);
  }

  /** The absolute paths among a process's arguments. */
  async argumentPathsOf(pid: number): Promise<readonly string[]> {
    const file = await open(`${this.root}/${pid}/cmdline`, "r").catch(() => undefined);
    if (file === undefined) return [];
    try {
      const buffer = Buffer.alloc(maxCommandLine);
      const { bytesRead } = await file.read(buffer, 0, maxCommandLine, 0);
      const words = buffer.toString("utf8", 0, bytesRead).split("\0");
      return words.filter((word) => word.startsWith("/"));
    } finally {
      await file.close();
    }
  }
}

function socketInode(path: string): number | undefined {
  try {
    const inode = /^socket:\[(\d+)\]$/.exec(readlinkSync(path))?.[1];
    return inode === undefined ? undefined : Number(inode);
  } catch {
    // Closed since its name was read.
    return undefined;
  }
}
