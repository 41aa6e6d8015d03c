/** Which blocks of some files have run, as V8 counts them. */
import { type Profiler, Session } from "node:inspector";
import { promisify } from "node:util";

/** What has run of one file. */
interface Covered {
  /** By offset: 1 where the code has run. */
  readonly ran: Uint8Array;
  /** Offsets where a block begins. */
  readonly blocks: Set<number>;
}

/** Counts what runs from now on. */
export class BlockCoverage {
  readonly #session = new Session();
  readonly #isWanted: (url: string) => boolean;
  readonly #files = new Map<string, Covered>();

  private constructor(isWanted: (url: string) => boolean) {
    this.#isWanted = isWanted;
  }

  static async start(isWanted: (url: string) => boolean): Promise<BlockCoverage> {
    const coverage = new BlockCoverage(isWanted);
    const session = coverage.#session;
    session.connect();
    await promisify<void>((done) => session.post("Profiler.enable", (error) => done(error)))();
    await promisify<void>((done) =>
      session.post("Profiler.startPreciseCoverage", { callCount: true, detailed: true }, (error) =>
        done(error),
      ),
    )();
    return coverage;
  }

  /** True where something ran since the last call that never ran before; it is remembered unless this is a `trial`. */
  async hasGrown(trial = false): Promise<boolean> {
    const scripts = await new Promise<Profiler.ScriptCoverage[]>((resolve, reject) => {
      this.#session.post("Profiler.takePreciseCoverage", (error, { result }) => {
        if (error === null) resolve(result);
        else reject(error);
      });
    });
    let grown = false;
    for (const script of scripts) {
      if (this.#isWanted(script.url) && this.#take(script, trial)) grown = true;
    }
    return grown;
  }

  /** How many blocks have run, and how many are known. */
  get blocks(): { readonly reached: number; readonly known: number } {
    let reached = 0;
    let known = 0;
    for (const { ran, blocks } of this.#files.values()) {
      known += blocks.size;
      for (const at of blocks) reached += ran[at] ?? 0;
    }
    return { reached, known };
  }

  close(): void {
    this.#session.disconnect();
  }

  #take({ url, functions }: Profiler.ScriptCoverage, trial: boolean): boolean {
    const ranges = functions.flatMap((one) => one.ranges);
    const size = Math.max(...ranges.map(({ endOffset }) => endOffset));
    const earlier = this.#files.get(url);
    const ran = new Uint8Array(Math.max(size, earlier?.ran.length ?? 0));
    const blocks = earlier?.blocks ?? new Set<number>();
    // An inner range comes behind the one around it, and says more.
    for (const { startOffset, endOffset, count } of ranges) {
      blocks.add(startOffset);
      ran.fill(count > 0 ? 1 : 0, startOffset, endOffset);
    }
    let grown = false;
    for (let at = 0; at < ran.length; at += 1) {
      if (earlier?.ran[at] === 1) ran[at] = 1;
      else if (ran[at] === 1) grown = true;
    }
    if (!trial) this.#files.set(url, { ran, blocks });
    return grown;
  }
}
