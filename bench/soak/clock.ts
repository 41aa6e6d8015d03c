/** (d) The wall clock is set forward and back by an hour, under traffic: as a machine's is, while monotonic time goes on. */
import { setTimeout as delay } from "node:timers/promises";
import { eventually } from "../../test/support/eventually.ts";
import type { ProxyProcess } from "../../test/support/proxy.ts";
import { end, type Ground, hear, processorSeconds, setClock, takeStock } from "./ground.ts";
import type { Ledger } from "./ledger.ts";
import { ask, Mix, secured } from "./mix.ts";
import { bytesOf, digestOf, leafNames } from "./parties.ts";
import { askAgent, beside, echoOn, openTunnels, recovers, type Stage } from "./stage.ts";

const hourMs = 3_600_000;
const perHour = 3;
const budget = {
  name: "hourly",
  unit: "requests",
  limit: perHour,
  window: "hour",
  hosts: ["budget.test"],
};
/** Seconds: valid for two hours already, so that no step makes it one of the future. */
const old = { from: -7_200 };

export const clockSteps: Stage = {
  name: "clock set by an hour and back",
  weight: 6,
  async run({ ground, ledger, pace }) {
    const hosts = [...leafNames, "budget.test"].map((name) => [name, ["127.0.0.1"]]);
    const over = { session: { enabled: true }, egress: { hosts: Object.fromEntries(hosts) } };
    const plugins = [{ name: "budgets", config: { limits: [budget] } }];
    const proxy = await ground.start(beside(ground.file(over), "outbound", plugins));
    const steps = new Steps(ground, proxy, ledger);
    // Usable for a second, after the half minute that is kept back.
    ground.parties.tokenSeconds = 31;
    for (const _ of pace.cycles()) {
      for (const offsetMs of [hourMs, 0, -hourMs, 0]) await steps.to(offsetMs);
      await takeStock(proxy, ledger);
      await restsAt(proxy, ledger);
    }
    await hear(proxy, ledger);
    await end(proxy, ledger);
    return { steps: 4 * pace.done };
  },
};

/** Nobody asks: nothing may turn. */
async function restsAt(proxy: ProxyProcess, ledger: Ledger): Promise<void> {
  const before = processorSeconds(proxy);
  await delay(1_000);
  const taken = processorSeconds(proxy) - before;
  if (taken > 0.5) ledger.lost(`${taken.toFixed(1)} s of processor time in a second of rest`);
}

class Steps {
  readonly #ground: Ground;
  readonly #proxy: ProxyProcess;
  readonly #ledger: Ledger;
  /** Requests that went through, by hour. */
  readonly #spent = new Map<number, number>();
  /** Begins half an hour after the first step, and is the same token in all of them. */
  #begins: string | undefined;
  #seed = 0;
  #offsetMs = 0;

  constructor(ground: Ground, proxy: ProxyProcess, ledger: Ledger) {
    this.#ground = ground;
    this.#proxy = proxy;
    this.#ledger = ledger;
  }

  async to(offsetMs: number): Promise<void> {
    const { parties } = this.#ground;
    const during = new AbortController();
    const mix = await Mix.start(this.#ground, this.#proxy);
    const traffic = mix.until(during.signal, 8, this.#ledger);
    const tunnels = await openTunnels(this.#ground, this.#proxy, 8, this.#ledger);
    const ends = await parties.token("ends", { ...old, until: 1_800 });
    this.#begins ??= await parties.token("begins", { from: 3_000 });
    await this.#token("before a step", ends, this.#offsetMs > 0 ? 401 : 200);
    await setClock(this.#proxy, offsetMs);
    this.#offsetMs = offsetMs;
    // The one that was taken a moment ago may have ended by this clock.
    for (let twice = 0; twice < 2; twice += 1) {
      await this.#token("that ends in half an hour", ends, offsetMs > 0 ? 401 : 200);
      await this.#token("that begins in a while", this.#begins, offsetMs > 0 ? 200 : 401);
    }
    await this.#leaf();
    await this.#budget();
    for (const tunnel of tunnels) await echoOn(tunnel, this.#next(), this.#ledger);
    during.abort();
    await traffic;
    mix.close();
    for (const tunnel of tunnels) tunnel.close();
    await this.#exchange();
    await this.#newKey();
  }

  #next(): number {
    this.#seed += 1;
    return this.#seed;
  }

  #at(): string {
    return `with the clock at ${this.#offsetMs / 60_000} min`;
  }

  async #token(what: string, token: string, due: number): Promise<void> {
    const seed = this.#next();
    const answer = await askAgent(this.#proxy, token, seed);
    this.#ledger.answered(`a token ${what} ${this.#at()}`, answer, [due], digestOf(bytesOf(seed)));
  }

  /** Clients have the same clock: a leaf is valid by it, be it new or kept. */
  async #leaf(): Promise<void> {
    for (const name of [leafNames[0], leafNames[this.#next() % leafNames.length]]) {
      const socket = await secured(
        this.#proxy,
        `${name}:${this.#ground.parties.securePort}`,
        "http/1.1",
      ).catch(() => undefined);
      const { valid_from: from = "", valid_to: to = "" } = socket?.getPeerCertificate() ?? {};
      socket?.destroy();
      const now = Date.now() + this.#offsetMs;
      const isValid = Date.parse(from) <= now && now < Date.parse(to);
      if (!isValid) this.#ledger.lost(`a leaf from ${from} to ${to} ${this.#at()}`);
    }
  }

  /** Every hour has its own budget, and what was spent in one stays spent. */
  async #budget(): Promise<void> {
    const hour = (): number => Math.floor((Date.now() + this.#offsetMs) / hourMs);
    const before = hour();
    const answer = await this.#get("budget.test", 1);
    const spent = this.#spent.get(before) ?? 0;
    const due = hour() !== before ? [200, 429] : [spent < perHour ? 200 : 429];
    this.#ledger.answered(`a budget of which ${spent} are spent ${this.#at()}`, answer, due);
    if (answer.status === 200) this.#spent.set(before, spent + 1);
  }

  /** A token that was exchanged a few seconds ago has ended, whatever the clock says that the time is. */
  async #exchange(): Promise<void> {
    const { parties } = this.#ground;
    const token = await parties.token("exchanged by steps", old);
    const once = () => this.#get("exchanged.test", 2, { Authorization: `Bearer ${token}` });
    const digest = digestOf(bytesOf(2));
    this.#ledger.answered(`an exchange ${this.#at()}`, await once(), [200], digest);
    const before = parties.exchanges;
    await eventually(async () => {
      this.#ledger.answered(`an exchange ${this.#at()}`, await once(), [200], digest);
      await delay(250);
      return parties.exchanges > before;
    }, 60_000).catch(() =>
      this.#ledger.lost(`an exchanged token that has ended is used ${this.#at()}`),
    );
  }

  /** The issuer changes its keys: first nobody can fetch them, then everybody. */
  async #newKey(): Promise<void> {
    const { parties } = this.#ground;
    parties.rotate();
    const token = await parties.token(`signed anew ${this.#next()}`, old);
    parties.idp.mood = "resetting";
    const answer = await askAgent(this.#proxy, token, 3);
    this.#ledger.answered("a token of a key that cannot be had", answer, [401, 503]);
    parties.idp.mood = "well";
    // The retry is due by another clock.
    const back = this.#offsetMs;
    await setClock(this.#proxy, 0);
    await recovers(`a new key is not fetched after ${back / 60_000} min`, this.#ledger, () =>
      askAgent(this.#proxy, token, 3),
    );
    await setClock(this.#proxy, back);
  }

  #get(host: string, seed: number, headers = {}) {
    const authority = `${host}:${this.#ground.parties.origin.port}`;
    return ask({
      port: this.#proxy.forward.port,
      path: `http://${authority}/bytes/${seed}`,
      agent: false,
      headers: { Host: authority, ...headers },
    });
  }
}
