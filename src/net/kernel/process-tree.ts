/** The parents and children of processes: one pass over /proc that says which processes can share a socket by inheritance. */
import { readFileSync, statSync } from "node:fs";
import { names } from "./proc-folder.ts";

/** What a process is, as far as /proc tells. */
export interface ProcessFacts {
  readonly pid: number;
  readonly parent: number;
  /** Clock ticks since boot: with the pid it names one process for ever. */
  readonly startedAt: string;
}

/** More are not taken down; the search of everything then has the last word. */
const maxProcesses = 32_768;
const maxLevels = 256;
const init = 1;

/** Whether a name in /proc is that of a process. */
export function isPid(name: string): boolean {
  return /^[1-9]\d*$/.test(name);
}

/** Parent and start time of a process; undefined when it has ended. */
export function processFacts(root: string, pid: number): ProcessFacts | undefined {
  let text: string;
  try {
    // Node reads a whole file as UTF-8 in one native call; what matters here is ASCII.
    text = readFileSync(`${root}/${pid}/stat`, "utf8");
  } catch {
    // Ended, or hidden by hidepid: either way nothing is known of it.
    return undefined;
  }
  // proc(5): the command is in parentheses and may hold any character, so that fields count from the last one.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ", 20);
  return { pid, parent: Number(fields[1]), startedAt: fields[19] ?? "" };
}

/** The topmost ancestor below init, or the process itself. */
export function topmostOf(root: string, pid: number): number {
  let top = processFacts(root, pid);
  for (let levels = 0; top !== undefined && levels < maxLevels; levels += 1) {
    // In a PID namespace of its own a process has no visible parent.
    const above = top.parent <= init ? undefined : processFacts(root, top.parent);
    if (above === undefined) break;
    top = above;
  }
  return top?.pid ?? pid;
}

/** The tree of processes as one pass over /proc found it. */
export class ProcessTree {
  readonly #root: string;
  readonly #processes = new Map<number, ProcessFacts>();
  readonly #children = new Map<number, number[]>();

  constructor(root: string) {
    this.#root = root;
  }

  /** Reads one process per step. */
  *read(): Generator<void, void, undefined> {
    for (const name of names(this.#root)) {
      if (!isPid(name)) continue;
      if (this.#processes.size >= maxProcesses) return;
      const facts = processFacts(this.#root, Number(name));
      if (facts === undefined) continue;
      this.#processes.set(facts.pid, facts);
      const siblings = this.#children.get(facts.parent);
      if (siblings === undefined) this.#children.set(facts.parent, [facts.pid]);
      else siblings.push(facts.pid);
      yield;
    }
  }

  /**
   * The families of these processes, breadth first, each process once.
   *
   * A family is the tree below the topmost ancestor under init, and the trees of orphans that may have come from it:
   * children of init that started later and belong to the same user.
   */
  *familiesOf(pids: readonly number[]): Generator<number, void, undefined> {
    const roots = new Set(pids.flatMap((pid) => this.#topmost(pid) ?? []));
    const queue = [...roots, ...this.#orphansOf(roots)];
    const queued = new Set(queue);
    for (let pid = queue.shift(); pid !== undefined; pid = queue.shift()) {
      yield pid;
      for (const child of this.#children.get(pid) ?? []) {
        if (queued.has(child)) continue;
        queued.add(child);
        queue.push(child);
      }
    }
  }

  #topmost(pid: number): number | undefined {
    let facts = this.#processes.get(pid);
    for (let levels = 0; facts !== undefined && levels < maxLevels; levels += 1) {
      const above = facts.parent === init ? undefined : this.#processes.get(facts.parent);
      // In a PID namespace of its own a process has no visible parent; kthreadd and the like have parent 0.
      if (above === undefined) return facts.pid;
      facts = above;
    }
    return facts?.pid;
  }

  *#orphansOf(roots: ReadonlySet<number>): Generator<number, void, undefined> {
    const users = new Set<number>();
    let earliest = Number.POSITIVE_INFINITY;
    for (const root of roots) {
      users.add(this.#userOf(root) ?? -1);
      earliest = Math.min(earliest, Number(this.#processes.get(root)?.startedAt));
    }
    for (const pid of this.#children.get(init) ?? []) {
      const startedAt = Number(this.#processes.get(pid)?.startedAt);
      if (roots.has(pid) || startedAt < earliest) continue;
      const user = this.#userOf(pid);
      if (user !== undefined && users.has(user)) yield pid;
    }
  }

  #userOf(pid: number): number | undefined {
    return statSync(`${this.#root}/${pid}`, { throwIfNoEntry: false })?.uid;
  }
}
