/** What a fleet of agents asks of proxies and of an identity provider: arrivals at random, and the program's own cache of tokens. */
import { Secret } from "../src/secret.ts";
import { TokenCache } from "../src/oauth/token-cache.ts";

/** What agents do. Times are in seconds. */
export interface Workload {
  readonly agents: number;
  /** Requests of one agent a second. */
  readonly outbound: number;
  /** Messages to one agent a second, each with a bearer token of its user. */
  readonly inbound: number;
  /** Tools that an agent uses; each wants a token of its own. */
  readonly targets: number;
  /** Life of a user's token; the agent then has a new one. */
  readonly userToken: number;
  /** Life of an exchanged token, of which 30 s are not used. */
  readonly issuedToken: number;
}

/** How connections come to replicas: always to the same one for an agent, or to any. */
export type Balance = "hash" | "any";

/** One message of an agent. */
export interface Arrival {
  /** Seconds since the beginning. */
  readonly at: number;
  readonly direction: "outbound" | "inbound";
  readonly agent: number;
  readonly target: number;
  /** Which of the tokens of the agent's user. */
  readonly epoch: number;
  readonly replica: number;
}

/** What one replica, or all of them together, did. */
export interface Counts {
  outbound: number;
  inbound: number;
  /** Requests whose token was asked for at the identity provider. */
  exchanged: number;
  /** Tokens whose signature was verified. */
  verified: number;
}

/** Numbers between 0 and 1, the same ones for a seed. */
export function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d_2b_79_f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** Independent agents: together they are one stream of messages, each of a random one. */
export function* arrivals(
  work: Workload,
  { seconds, replicas, balance }: { seconds: number; replicas: number; balance: Balance },
  random: () => number,
): Generator<Arrival> {
  const { agents, outbound, inbound, targets, userToken } = work;
  const rate = agents * (outbound + inbound);
  const share = outbound / (outbound + inbound);
  for (let at = -Math.log(1 - random()) / rate; at < seconds; at -= Math.log(1 - random()) / rate) {
    const agent = Math.floor(random() * agents);
    // Users come at different times.
    const epoch = Math.floor(at / userToken + ((agent * 0.618_033_988_7) % 1));
    yield {
      at,
      direction: random() < share ? "outbound" : "inbound",
      agent,
      target: Math.floor(random() * targets),
      epoch,
      replica: balance === "hash" ? agent % replicas : Math.floor(random() * replicas),
    };
  }
}

/** As many verified tokens are remembered. */
const maxVerified = 10_000;

/** One replica as far as its caches go. */
class Replica {
  readonly counts: Counts = { outbound: 0, inbound: 0, exchanged: 0, verified: 0 };
  readonly #tokens: TokenCache;
  readonly #verified = new Map<string, number>();
  readonly #patient = new AbortController().signal;
  readonly #work: Workload;
  readonly #clock: { now(): number };

  constructor(work: Workload, clock: { now(): number }) {
    this.#work = work;
    this.#clock = clock;
    this.#tokens = new TokenCache({ clock });
  }

  take({ direction, agent, target, epoch }: Arrival): Promise<unknown> | undefined {
    if (direction === "inbound") {
      this.counts.inbound += 1;
      this.#verify(`${agent} ${epoch}`);
      return undefined;
    }
    this.counts.outbound += 1;
    const key = `${agent} ${target} ${epoch}`;
    if (this.#tokens.get(key) !== undefined) return undefined;
    this.counts.exchanged += 1;
    const expiresAt = this.#clock.now() + this.#work.issuedToken * 1_000;
    const load = (): Promise<{ kind: "issued"; token: Secret; expiresAt: number }> =>
      Promise.resolve({ kind: "issued", token: new Secret("t"), expiresAt });
    return this.#tokens.obtain({ key, load }, this.#patient);
  }

  #verify(token: string): void {
    const now = this.#clock.now();
    if ((this.#verified.get(token) ?? 0) > now) return;
    this.counts.verified += 1;
    if (this.#verified.size >= maxVerified) {
      for (const oldest of this.#verified.keys()) {
        if (this.#verified.size <= maxVerified * 0.75) break;
        this.#verified.delete(oldest);
      }
    }
    this.#verified.set(token, now + this.#work.userToken * 1_000);
  }
}

/** What replicas do with messages; those before `from` seconds fill the caches and are not counted. */
export async function replay(
  work: Workload,
  messages: Iterable<Arrival>,
  { replicas, from = 0 }: { readonly replicas: number; readonly from?: number },
): Promise<Counts> {
  let now = 0;
  const clock = { now: () => now };
  const all = Array.from({ length: replicas }, () => new Replica(work, clock));
  let before: Counts | undefined = from === 0 ? sumOf([]) : undefined;
  for (const message of messages) {
    if (before === undefined && message.at >= from) before = sumOf(all);
    now = message.at * 1_000;
    const waiting = all[message.replica]?.take(message);
    if (waiting !== undefined) await waiting;
  }
  const after = sumOf(all);
  const { outbound = 0, inbound = 0, exchanged = 0, verified = 0 } = before ?? {};
  return {
    outbound: after.outbound - outbound,
    inbound: after.inbound - inbound,
    exchanged: after.exchanged - exchanged,
    verified: after.verified - verified,
  };
}

function sumOf(replicas: readonly Replica[]): Counts {
  const sum: Counts = { outbound: 0, inbound: 0, exchanged: 0, verified: 0 };
  for (const { counts } of replicas) {
    sum.outbound += counts.outbound;
    sum.inbound += counts.inbound;
    sum.exchanged += counts.exchanged;
    sum.verified += counts.verified;
  }
  return sum;
}

/** More messages than this show nothing more. */
const maxMessages = 400_000;

/**
 * The rates of one replica of many, a second. With `any`, a replica sees every agent, each of them more seldom; with `hash`,
 * it has its own agents.
 */
export async function ratesOf(
  work: Workload,
  { replicas, balance }: { readonly replicas: number; readonly balance: Balance },
): Promise<Counts> {
  const own: Workload =
    balance === "hash"
      ? { ...work, agents: Math.max(1, Math.round(work.agents / replicas)) }
      : { ...work, outbound: work.outbound / replicas, inbound: work.inbound / replicas };
  const rate = own.agents * (own.outbound + own.inbound);
  // Tokens of all ages have to be there before anything is counted.
  const cycle = Math.max(work.issuedToken, work.userToken);
  const seconds = Math.min(4 * cycle, Math.max(maxMessages / rate, 2 * work.issuedToken));
  const from = seconds / 2;
  const messages = arrivals(own, { seconds, replicas: 1, balance }, randomFrom(1));
  const counts = await replay(own, messages, { replicas: 1, from });
  const per = 1 / (seconds - from);
  return {
    outbound: counts.outbound * per,
    inbound: counts.inbound * per,
    exchanged: counts.exchanged * per,
    verified: counts.verified * per,
  };
}
