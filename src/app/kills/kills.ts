/** The kills of the process: from operators, from a file that outlives it, and from the other replicas. */
import { constants, statSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { messageOf } from "../../errors.ts";
import { writeAtomically } from "../../files/atomic-file.ts";
import { readSmallFile, stampOf } from "../../files/watched-file.ts";
import { type Kill, killName } from "../../pipeline/kill-switch.ts";
import type { StateFeed } from "../../state/store.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import { formatKillFile, type KillFile, maxKills, parseKillFile } from "./kill-file.ts";
import { idsOf, KillSet, type Told, toldOf } from "./kill-set.ts";

/** What the kills are told to, and where they come from. */
export interface KillServices {
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Absent where kills end with the process. */
  readonly file: string | undefined;
  /** How replicas hear of them; absent where there are none. */
  readonly feed: StateFeed | undefined;
  /** Stops what runs, in every thread; resolves with how much there was. */
  apply(this: void, kills: readonly Kill[]): Promise<number>;
}

/** What became of an operator's order. */
export interface KillOutcome {
  readonly kills: readonly Kill[];
  /** Tunnels and exchanges that were ended. */
  readonly cut: number;
  /** From the order until every thread forwarded nothing of it, and had cut its clients. */
  readonly tookMs: number;
  /** Whether it is in the file. */
  readonly isKept: boolean;
  /** Whether replicas were told; undefined where there are none. */
  readonly isTold: boolean | undefined;
}

const lookEveryMs = 1_000;
/** In place: a link is not followed, and a pipe is not waited for. */
const inPlace =
  constants.O_WRONLY |
  constants.O_CREAT |
  constants.O_TRUNC |
  constants.O_NOFOLLOW |
  constants.O_NONBLOCK;

/** The kills, and everybody who has to know them. */
export class Kills {
  readonly #services: KillServices;
  readonly #set = new KillSet();
  /** What the file said last, by name: what it says no more was taken out by somebody. */
  #inFile: ReadonlyMap<string, readonly string[]> = new Map();
  /** What the file said and replicas have not been told. */
  #untold: Told[] = [];
  #stamp = "";
  #problem: string | undefined;
  #writing: Promise<unknown> = Promise.resolve();
  /** Orders, of operators and replicas, that are not in the file yet. */
  #toWrite = 0;
  #looks: NodeJS.Timeout | undefined;

  /** Those of a process, whose thread in control knows them at once. */
  static of(
    parts: {
      readonly metrics: Metrics;
      readonly state: { readonly kills: StateFeed | undefined };
      readonly kills: { set(kills: readonly Kill[]): void };
    },
    services: Pick<KillServices, "log" | "file" | "apply">,
  ): Kills {
    const kills = new Kills({ ...services, metrics: parts.metrics, feed: parts.state.kills });
    parts.kills.set(kills.kills);
    return kills;
  }

  constructor(services: KillServices) {
    this.#services = services;
    const { metrics, file } = services;
    metrics.gauge("kill_switch_active", () => this.#set.size);
    if (file === undefined) return;
    this.#readFile();
    this.#looks = setInterval(() => void this.#look(), lookEveryMs).unref();
  }

  get kills(): readonly Kill[] {
    return this.#set.kills;
  }

  /** Tells the threads what there is, and begins to hear of replicas. */
  async start(): Promise<void> {
    if (this.#set.size > 0) await this.#apply();
    const { feed, log } = this.#services;
    if (feed === undefined) return;
    feed
      .follow((texts) => this.#hear(texts))
      .catch((error: unknown) =>
        log.error({ error: messageOf(error) }, "kills of replicas are not heard"),
      );
    this.#tellFile();
  }

  /** Stops it; `by` is for the log. Undefined where there are too many. */
  async kill(kill: Omit<Kill, "at">, by: string): Promise<KillOutcome | undefined> {
    await this.#look();
    if (!this.#set.has(killName(kill)) && this.#set.size >= maxKills) return undefined;
    const startedAt = performance.now();
    return this.#follow(this.#set.stop({ ...kill, at: Date.now() }), by, startedAt);
  }

  /** Lets it go on; undefined where it was not stopped. */
  async release(name: string, by: string): Promise<KillOutcome | undefined> {
    await this.#look();
    const startedAt = performance.now();
    const told = this.#set.release(name, Date.now());
    return told && this.#follow(told, by, startedAt);
  }

  close(): void {
    clearInterval(this.#looks);
  }

  /** Before each order as well: what somebody has just written into the file must not be written over. */
  async #look(): Promise<void> {
    if (!this.#readFile()) return;
    await this.#apply();
    this.#tellFile();
  }

  #tellFile(): void {
    const { feed } = this.#services;
    for (const told of this.#untold.splice(0)) void feed?.tell(JSON.stringify(told));
  }

  async #follow(told: Told, by: string, startedAt: number): Promise<KillOutcome> {
    const { log, feed } = this.#services;
    // What runs is stopped first: the file and the replicas may take their time.
    this.#toWrite += 1;
    const cut = await this.#apply().finally(() => (this.#toWrite -= 1));
    const tookMs = performance.now() - startedAt;
    const { scope, value, reason } = told.kill;
    log.warn(
      { scope, value, reason, by, cut, tookMs: Math.round(tookMs) },
      told.isReleased
        ? "an operator has released what was stopped"
        : "an operator has stopped traffic",
    );
    const [isKept, isTold] = await Promise.all([this.#write(), feed?.tell(JSON.stringify(told))]);
    return { kills: this.kills, cut, tookMs, isKept, isTold };
  }

  async #apply(): Promise<number> {
    const { metrics, apply } = this.#services;
    const cut = await apply(this.kills);
    metrics.counters.kill_switch_cut_total.of().value += cut;
    return cut;
  }

  #hear(texts: readonly string[]): void {
    let isChanged = this.#readFile();
    for (const text of texts) {
      const told = toldOf(text, this.#set.ids);
      if (told === undefined || !this.#set.take(told)) continue;
      isChanged = true;
      const { scope, value, reason } = told.kill;
      this.#services.log.warn(
        { scope, value, reason, released: told.isReleased },
        "stopped or released, as another replica says",
      );
    }
    this.#tellFile();
    if (!isChanged) return;
    void this.#apply();
    void this.#write();
  }

  /** One after another: what is written is what there is then. */
  #write(): Promise<boolean> {
    const { file, log } = this.#services;
    if (file === undefined) return Promise.resolve(false);
    this.#toWrite += 1;
    const written = this.#writing.then(async () => {
      try {
        return await this.#put(file);
      } catch (error) {
        log.error(
          { key: "kill_switch.file", error: messageOf(error) },
          "the file cannot be written: what is stopped goes on with a restart",
        );
        return false;
      } finally {
        this.#toWrite -= 1;
      }
    });
    this.#writing = written;
    return written;
  }

  async #put(file: string): Promise<boolean> {
    // What somebody has written into it since the order would be lost.
    if (this.#readFile()) {
      void this.#apply();
      this.#tellFile();
    }
    const { fault } = this.#set;
    // What stops all by itself is written as what it is.
    if (fault !== undefined) {
      this.#set.fault = undefined;
      this.#set.stop(fault);
    }
    const { kills, ids } = this.#set;
    const text = formatKillFile(kills, ids);
    try {
      await writeAtomically(file, text, 0o600);
    } catch {
      // A file that is mounted by itself, or a full disk. What is cut short, or empty, stops all.
      try {
        await writeFile(file, text, { flag: inPlace, mode: 0o600 });
      } catch (error) {
        this.#inFile = new Map();
        this.#stamp = stampOf(statSync(file));
        throw error;
      }
    }
    this.#inFile = ids;
    const stat = statSync(file);
    // What somebody has written into it since is read with the next look, and not taken for this.
    if (readSmallFile(file, undefined, stat) === text) this.#stamp = stampOf(stat);
    return true;
  }

  /** True where the file has changed. What cannot be read stops all; what is not there stops nothing. */
  #readFile(): boolean {
    const { file } = this.#services;
    if (file === undefined) return false;
    const read = this.#fileText(file);
    if (read === undefined) return false;
    const said: KillFile =
      "text" in read ? parseKillFile(read.text, Date.now()) : { kills: [], problem: read.problem };
    const { problem } = said;
    if (problem !== undefined && problem !== this.#problem)
      this.#services.log.error(
        { key: "kill_switch.file", problem },
        "the file cannot be read: all traffic is stopped",
      );
    this.#problem = problem;
    this.#set.fault =
      problem === undefined
        ? undefined
        : { scope: "all", value: "", reason: problem, at: Date.now() };
    // What it said before stands: nobody took it back.
    if (problem === undefined) this.#compare(said);
    if (this.#set.size > 0)
      this.#services.log.warn(
        { kills: this.kills.map(killName) },
        "stopped, as the file of the kill switch says",
      );
    return true;
  }

  /** What the file says and did not say before, and the other way around. */
  #compare({ kills, ids }: KillFile): void {
    const now = new Map<string, readonly string[]>();
    for (const kill of kills) {
      const name = killName(kill);
      const known = idsOf(ids?.get(name));
      if (known !== undefined) this.#set.take({ kill, ids: known, isReleased: false });
      const isOld = known !== undefined || this.#inFile.has(name);
      // What was released and is there again counts, unless the release still waits to be written.
      const isReleased = this.#inFile.has(name) && this.#toWrite > 0;
      if (!isOld || !(isReleased || this.#set.has(name))) this.#untold.push(this.#set.stop(kill));
      now.set(name, this.#set.ids.get(name) ?? []);
    }
    const gone = [...(ids?.keys() ?? []), ...this.#inFile.keys()].filter((name) => !now.has(name));
    for (const name of new Set(gone)) {
      const [scope = "all"] = name.split(" ", 1);
      const value = name.slice(scope.length + 1);
      const gaveUp = [...(this.#inFile.get(name) ?? []), ...(idsOf(ids?.get(name)) ?? [])];
      const kill = { scope: scope as Kill["scope"], value, at: Date.now() };
      const told = { kill, ids: [...new Set(gaveUp)], isReleased: true };
      this.#set.take(told);
      this.#untold.push(told);
    }
    this.#inFile = now;
  }

  /** Undefined where it is as it was. */
  #fileText(file: string): { readonly text: string } | { readonly problem: string } | undefined {
    try {
      const stat = statSync(file);
      const stamp = stampOf(stat);
      if (stamp === this.#stamp) return undefined;
      const text = readSmallFile(file, undefined, stat);
      this.#stamp = stamp;
      return { text };
    } catch (error) {
      const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
      const stamp = isMissing ? "" : messageOf(error);
      if (stamp === this.#stamp) return undefined;
      this.#stamp = stamp;
      return isMissing ? { text: formatKillFile([], new Map()) } : { problem: messageOf(error) };
    }
  }
}
