/** Which processes hold a socket, and what they are: reads of /proc in slices that never hold up the event loop. */
import { opendirSync, readFileSync, readlinkSync } from "node:fs";
import { open, readlink, stat } from "node:fs/promises";
import { setImmediate } from "node:timers/promises";
import { Sweep } from "./sweep.ts";

/** A process that holds a socket, and by which of its descriptors. */
export interface SocketHolder {
  readonly pid: number;
  readonly descriptor: string;
}

/** What a process is, as far as /proc tells. */
export interface ProcessFacts {
  readonly pid: number;
  readonly parent: number;
  /** Clock ticks since boot: with the pid it names one process for ever. */
  readonly startedAt: string;
}

/** How a table is read. */
export interface ProcessTableOptions {
  /** `/proc`, or a copy of its shape. */
  readonly root: string;
  /** The process whose descendants are looked at first. */
  readonly agentPid?: number;
  /** Longest stretch of the event loop that one slice may take. */
  readonly sliceMs?: number;
  /** A search that takes longer is given up, with nothing found. */
  readonly searchMs?: number;
}

const defaultSliceMs = 1;
const defaultSearchMs = 2000;
const maxProcesses = 32_768;
const maxKnownPids = 64;
/** Bytes of a command line that are read. */
const maxCommandLine = 16_384;

/** The processes of one /proc. */
export class ProcessTable {
  readonly root: string;
  readonly #agentPid: number | undefined;
  readonly #sliceMs: number;
  readonly #searchMs: number;
  readonly #sweep: Sweep<number, readonly SocketHolder[]>;
  /** Owners of earlier connections, most recent last: they are looked at first. */
  readonly #known = new Set<number>();

  constructor(options: ProcessTableOptions) {
    this.root = options.root;
    this.#agentPid = options.agentPid;
    this.#sliceMs = options.sliceMs ?? defaultSliceMs;
    this.#searchMs = options.searchMs ?? defaultSearchMs;
    this.#sweep = new Sweep((wanted) => this.#search(wanted));
  }

  /**
   * Every process that holds a socket, lowest pid first.
   *
   * Every process is looked at even when an owner is known early: a socket can be shared with a process that has
   * nothing else to do with it, and the caller must know. Rejects when the search was given up.
   */
  async holdersOf(inode: number): Promise<readonly SocketHolder[]> {
    const holders = (await this.#sweep.ask(inode)) ?? [];
    for (const { pid } of holders) {
      this.#known.delete(pid);
      this.#known.add(pid);
    }
    for (const pid of this.#known) {
      if (this.#known.size <= maxKnownPids) break;
      this.#known.delete(pid);
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

  /** The search as small steps: owners of earlier connections, the agent's tree, then everything. */
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
    for (const pid of [...this.#known].reverse()) yield* look(pid);
    for (const pid of this.#tree()) yield* look(pid);
    for (const name of names(this.root)) {
      if (seen.size > maxProcesses) throw new Error("there are too many processes to look at");
      if (/^[1-9]\d*$/.test(name)) yield* look(Number(name));
    }
  }

  /** The agent and its descendants, breadth first. */
  *#tree(): Generator<number, void, undefined> {
    const queue = this.#agentPid === undefined ? [] : [this.#agentPid];
    const queued = new Set(queue);
    for (let pid = queue.shift(); pid !== undefined; pid = queue.shift()) {
      yield pid;
      for (const thread of names(`${this.root}/${pid}/task`)) {
        for (const child of childrenOf(`${this.root}/${pid}/task/${thread}/children`)) {
          if (queued.has(child) || queued.size > maxProcesses) continue;
          queued.add(child);
          queue.push(child);
        }
      }
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

  /** Parent and start of a process; undefined when it is gone. */
  factsOf(pid: number): ProcessFacts | undefined {
    let text: string;
    try {
      text = readFileSync(`${this.root}/${pid}/stat`, "latin1");
    } catch {
      // Gone, or hidden by hidepid: either way nothing is known of it.
      return undefined;
    }
    // proc(5): the command is in parentheses and may hold any character, so that fields count from the last one.
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    return { pid, parent: Number(fields[1]), startedAt: fields[19] ?? "" };
  }

  /**
   * The executable's path, or undefined when it cannot be read.
   *
   * The kernel appends " (deleted)" when the file is gone; a file can also be called so, and then it is there.
   */
  async executableOf(pid: number): Promise<string | undefined> {
    const path = await readlink(`${this.root}/${pid}/exe`).catch(() => undefined);
    const suffix = " (deleted)";
    if (path === undefined || !path.endsWith(suffix)) return path;
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

/** The names in a folder, one batch at a time; none when it cannot be read. */
function* names(folder: string): Generator<string, void, undefined> {
  let directory;
  try {
    directory = opendirSync(folder, { bufferSize: 128 });
  } catch {
    // The process is gone, or its descriptors are not ours to see.
    return;
  }
  try {
    for (let entry = directory.readSync(); entry !== null; entry = directory.readSync()) {
      yield entry.name;
    }
  } catch {
    // It went away while it was read.
  } finally {
    directory.closeSync();
  }
}

function childrenOf(path: string): readonly number[] {
  try {
    return readFileSync(path, "latin1").split(" ").filter(Boolean).map(Number);
  } catch {
    // A kernel without CONFIG_PROC_CHILDREN, or a thread that is gone: the search of everything finds them.
    return [];
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
