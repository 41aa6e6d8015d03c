/** The processes of a command, which stand still while somebody else has the terminal. */
import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { setTimeout as after } from "node:timers/promises";

/** The first process of a command, and whether it is one of those that stand still. */
export interface CommandRoot {
  readonly pid: number;
  readonly isIncluded: boolean;
}

interface Process {
  readonly pid: number;
  readonly parent: number;
  /** Stopped by somebody else, or ended already. */
  readonly isStill: boolean;
}

/** Processes may start others until they are all stopped; one that does not stop is left alone. */
const maxRounds = 300;

/** Those that were stopped, parents before their children. */
export class Standstill {
  readonly #stopped: number[] = [];

  /** Resolves once all of them stand still. */
  static async of(root: CommandRoot): Promise<Standstill> {
    const standstill = new Standstill();
    for (let round = 0; round < maxRounds && standstill.#step(root); round += 1) await after(1);
    return standstill;
  }

  get stopped(): readonly number[] {
    return this.#stopped;
  }

  /** Children first: to a shell that goes on its job has never stood still. */
  end(): void {
    for (const pid of this.#stopped.splice(0).reverse()) signal(pid, "SIGCONT");
  }

  /** False where nothing moves any more. */
  #step(root: CommandRoot): boolean {
    const moving = familyOf(root).filter(({ isStill }) => !isStill);
    for (const { pid, isNext } of moving)
      if (isNext && !this.#stopped.includes(pid) && signal(pid, "SIGSTOP")) this.#stopped.push(pid);
    return moving.length > 0;
  }
}

function signal(pid: number, name: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, name);
  } catch {
    return false;
  }
}

/** A process of the command; next are those whose parents are still, as a shell would see that its job was stopped. */
interface Member extends Process {
  readonly isNext: boolean;
}

/** Parents before their children. */
function familyOf({ pid: root, isIncluded }: CommandRoot): readonly Member[] {
  const all = processes();
  const family: Member[] = [];
  const first = all.filter(({ pid, parent }) => (isIncluded ? pid : parent) === root);
  let generation: readonly Member[] = first.map((one) => ({ ...one, isNext: true }));
  while (generation.length > 0) {
    family.push(...generation);
    generation = generation.flatMap(({ pid, isStill }) =>
      all.flatMap((one) => (one.parent === pid ? [{ ...one, isNext: isStill }] : [])),
    );
  }
  return family;
}

function processes(): readonly Process[] {
  const rows = process.platform === "linux" ? linuxRows() : otherRows();
  return rows.map(([pid, parent, state]) => ({
    pid: Number(pid),
    parent: Number(parent),
    isStill: /^[TtZX]/.test(state),
  }));
}

type Row = readonly [pid: string, parent: string, state: string];

function linuxRows(): readonly Row[] {
  return readdirSync("/proc").flatMap((pid): readonly Row[] => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const text = readFileSync(`/proc/${pid}/stat`, "latin1");
      // The name before may hold anything.
      const [state = "", parent = ""] = text.slice(text.lastIndexOf(")") + 2).split(" ");
      return [[pid, parent, state]];
    } catch {
      return [];
    }
  });
}

function otherRows(): readonly Row[] {
  const text = execFileSync("ps", ["-axo", "pid=,ppid=,state="], { encoding: "utf8" });
  return text.split("\n").flatMap((line): readonly Row[] => {
    const [pid, parent, state] = line.trim().split(/\s+/);
    return pid === undefined || parent === undefined || state === undefined
      ? []
      : [[pid, parent, state]];
  });
}
