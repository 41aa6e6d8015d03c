/** The kills of the process: from operators, from a file that outlives it, and from the other replicas. */
import { statSync } from "node:fs";
import { messageOf } from "../../errors.ts";
import { writeAtomically } from "../../files/atomic-file.ts";
import { readSmallFile, stampOf } from "../../files/watched-file.ts";
import { parseJsonObject } from "../../http/json-access.ts";
import { type Kill, killName } from "../../pipeline/kill-switch.ts";
import type { StateFeed } from "../../state/store.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import { formatKillFile, maxKills, parseKillFile, readKill } from "./kill-file.ts";

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
  /** Whether it is in the file. */
  readonly isKept: boolean;
  /** Whether replicas were told; undefined where there are none. */
  readonly isTold: boolean | undefined;
}

const lookEveryMs = 1_000;
/** What replicas tell each other of one kill. */
interface Told {
  readonly kill: Kill;
  readonly isReleased: boolean;
}

/** The kills, and everybody who has to know them. */
export class Kills {
  readonly #services: KillServices;
  readonly #kills = new Map<string, Kill>();
  /** When a kill was given or released last, so that what is heard late changes nothing. */
  readonly #changedAt = new Map<string, number>();
  #stamp = "";
  #problem: string | undefined;
  #writing: Promise<unknown> = Promise.resolve();
  /** Writes that are under way or wait. */
  #toWrite = 0;
  #look: NodeJS.Timeout | undefined;

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
    metrics.gauge("kill_switch_active", () => this.#kills.size);
    if (file === undefined) return;
    this.#readFile();
    this.#look = setInterval(() => void this.#follow(), lookEveryMs).unref();
  }

  get kills(): readonly Kill[] {
    return [...this.#kills.values()];
  }

  /** Tells the threads what there is, and begins to hear of replicas. */
  async start(): Promise<void> {
    if (this.#kills.size > 0) await this.#apply();
    const { feed, log } = this.#services;
    feed
      ?.follow((texts) => this.#hear(texts))
      .catch((error: unknown) =>
        log.error({ error: messageOf(error) }, "kills of replicas are not heard"),
      );
  }

  /** Stops it; `by` is for the log. Undefined where there are too many. */
  async kill(kill: Omit<Kill, "at">, by: string): Promise<KillOutcome | undefined> {
    await this.#follow();
    const known = this.#kills.get(killName(kill));
    if (known === undefined && this.#kills.size >= maxKills) return undefined;
    return this.#change(
      { kill: { ...kill, at: this.#next(killName(kill)) }, isReleased: false },
      by,
    );
  }

  /** Lets it go on; undefined where it was not stopped. */
  async release(name: string, by: string): Promise<KillOutcome | undefined> {
    await this.#follow();
    const known = this.#kills.get(name);
    if (known === undefined) return undefined;
    return this.#change({ kill: { ...known, at: this.#next(name) }, isReleased: true }, by);
  }

  close(): void {
    clearInterval(this.#look);
  }

  /** Before each order as well: what somebody has just written into the file must not be written over. */
  async #follow(): Promise<void> {
    if (this.#readFile()) await this.#apply();
  }

  async #change(told: Told, by: string): Promise<KillOutcome> {
    const { log, feed } = this.#services;
    this.#take(told);
    // What runs is stopped first: the file and the replicas may take their time.
    const cut = await this.#apply();
    const { scope, value, reason } = told.kill;
    log.warn(
      { scope, value, reason, by, cut },
      told.isReleased
        ? "an operator has released what was stopped"
        : "an operator has stopped traffic",
    );
    const [isKept, isTold] = await Promise.all([this.#write(), feed?.tell(JSON.stringify(told))]);
    return { kills: this.kills, cut, isKept, isTold };
  }

  /** When an order is given: after the last one that is known of the same thing, whatever the clocks of replicas say. */
  #next(name: string): number {
    return Math.max(Date.now(), (this.#changedAt.get(name) ?? 0) + 1);
  }

  #take({ kill, isReleased }: Told): void {
    const name = killName(kill);
    this.#changedAt.set(name, kill.at);
    if (isReleased) this.#kills.delete(name);
    else this.#kills.set(name, kill);
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
      const told = toldOf(text);
      if (told === undefined) continue;
      const name = killName(told.kill);
      const at = this.#changedAt.get(name) ?? 0;
      // Of two orders of one moment, what stops it counts.
      const isNews =
        at < told.kill.at || (at === told.kill.at && !told.isReleased && !this.#kills.has(name));
      if (!isNews) continue;
      if (!told.isReleased && !this.#kills.has(name) && this.#kills.size >= maxKills) continue;
      if (this.#changedAt.size >= 100 * maxKills) this.#changedAt.clear();
      this.#take(told);
      isChanged = true;
      const { scope, value, reason } = told.kill;
      this.#services.log.warn(
        { scope, value, reason, released: told.isReleased },
        "stopped or released, as another replica says",
      );
    }
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
        await writeAtomically(file, formatKillFile(this.kills), 0o600);
        this.#stamp = stampOf(statSync(file));
        return true;
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

  /** True where the file has changed. What cannot be read stops all; what is not there stops nothing. */
  #readFile(): boolean {
    const { file } = this.#services;
    // What waits to be written would be lost.
    if (file === undefined || this.#toWrite > 0) return false;
    const read = this.#fileText(file);
    if (read === undefined) return false;
    const { kills, problem } =
      "text" in read
        ? parseKillFile(read.text, Date.now())
        : { kills: unreadable(read.problem), problem: read.problem };
    if (problem !== undefined && problem !== this.#problem)
      this.#services.log.error(
        { key: "kill_switch.file", problem },
        "the file cannot be read: all traffic is stopped",
      );
    this.#problem = problem;
    this.#kills.clear();
    for (const kill of kills) this.#take({ kill, isReleased: false });
    if (kills.length > 0)
      this.#services.log.warn(
        { kills: kills.map(killName) },
        "stopped, as the file of the kill switch says",
      );
    return true;
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
      return isMissing ? { text: formatKillFile([]) } : { problem: messageOf(error) };
    }
  }
}

function unreadable(reason: string): readonly Kill[] {
  return [{ scope: "all", value: "", reason, at: Date.now() }];
}

/** What was sealed or kept was written by a replica; another version may write more. */
function toldOf(text: string): Told | undefined {
  const value = parseJsonObject(text);
  const kill = value?.["kill"] as Partial<Kill> | undefined;
  if (
    typeof kill?.scope !== "string" ||
    typeof kill.value !== "string" ||
    typeof kill.at !== "number"
  )
    return undefined;
  const read = readKill(kill.scope, kill.value);
  if (typeof read === "string") return undefined;
  const reason = typeof kill.reason === "string" ? { reason: kill.reason } : {};
  return { kill: { ...read, at: kill.at, ...reason }, isReleased: value?.["isReleased"] === true };
}
