/**
 * What fleets of 10 to 1,000,000 agents ask of proxies and of an identity provider, and what that costs: `node bench/fleet.ts`.
 *
 * `--check` runs real proxies with 10 and 100 agents beside the model; `--measure` measures what tokens cost here.
 */
import { parseArgs } from "node:util";
import { type Checked, check, measureTokens } from "./fleet-check.ts";
import { type Balance, ratesOf, type Workload } from "./fleet-model.ts";

/** Processor time in µs and memory in KiB, as bench/README.md and `--measure` have them. */
const costs = {
  forward: 39.8,
  cachedExchange: 4.8,
  policy: 11.1,
  reverse: 45,
  rememberedJwt: 9.7,
  bridged: 64.8,
  handshake: 1_005,
  freshJwt: 320,
  exchange: 260,
  budget: 145,
  leasedBudget: 45,
  sessionEvents: 4.6,
  idleProcessMiB: 90,
  warmProcessMiB: 150,
  connectionKiB: 3.9,
  bridgedConnectionKiB: 56.4,
  cachedTokenKiB: 3,
};

const { values: given } = parseArgs({
  options: {
    check: { type: "boolean", default: false },
    measure: { type: "boolean", default: false },
    outbound: { type: "string", default: "0.2" },
    inbound: { type: "string", default: "0.02" },
    targets: { type: "string", default: "4" },
    "user-token": { type: "string", default: "3600" },
    "issued-token": { type: "string", default: "300" },
    bridged: { type: "string", default: "0.5" },
    handshakes: { type: "string", default: "6" },
    connections: { type: "string", default: "4" },
    budget: { type: "string", default: "leased" },
    load: { type: "string", default: "0.5" },
    idp: { type: "string", default: "500" },
    "cpu-price": { type: "string", default: "0.04" },
    "memory-price": { type: "string", default: "0.0045" },
    json: { type: "boolean", default: false },
  },
});
const number = (
  name: Exclude<keyof typeof given, "check" | "measure" | "json" | "budget">,
): number => {
  const value = Number(given[name]);
  if (Number.isFinite(value) && value >= 0) return value;
  throw new Error(`--${name} must be a number that is not negative`);
};
const hoursOfMonth = 730;
/** Beyond it a process has more connections than limits.max_connections lets it have. */
const connectionsOfReplica = 10_000;

type Layout = "sidecars" | Balance;

interface Fleet {
  readonly agents: number;
  readonly layout: Layout;
  readonly replicas: number;
  readonly requests: number;
  readonly cores: number;
  readonly memoryGiB: number;
  readonly exchangeHits: number;
  readonly jwtHits: number;
  readonly idp: number;
  readonly keySets: number;
  readonly store: number;
  readonly dollars: number;
}

const workload = (agents: number): Workload => ({
  agents,
  outbound: number("outbound"),
  inbound: number("inbound"),
  targets: number("targets"),
  userToken: number("user-token"),
  issuedToken: number("issued-token"),
});

/** What one replica takes with these rates, in µs a second. */
function busyOf(
  rates: { outbound: number; inbound: number; exchanged: number; verified: number },
  agents: number,
) {
  const bridged = number("bridged");
  const budget = { off: 0, leased: costs.leasedBudget, exact: costs.budget }[given.budget];
  if (budget === undefined) throw new Error("--budget must be off, leased or exact");
  const out = (1 - bridged) * costs.forward + bridged * costs.bridged;
  const each = out + costs.cachedExchange + costs.policy + costs.sessionEvents + budget;
  const inbound = costs.reverse + costs.rememberedJwt + costs.sessionEvents;
  const handshakes = (agents * number("handshakes")) / 3_600;
  return (
    rates.outbound * each +
    rates.inbound * inbound +
    rates.exchanged * costs.exchange +
    rates.verified * costs.freshJwt +
    handshakes * costs.handshake
  );
}

function memoryMiBOf(agents: number, tokens: number, base: number): number {
  const connections = agents * number("connections");
  const bridged = number("bridged");
  const each = (1 - bridged) * costs.connectionKiB + bridged * costs.bridgedConnectionKiB;
  return base + (connections * each + Math.min(10_000, tokens) * costs.cachedTokenKiB) / 1_024;
}

async function fleetOf(agents: number, layout: Layout): Promise<Fleet> {
  const work = workload(agents);
  const isSidecar = layout === "sidecars";
  const balance = layout === "any" ? "any" : "hash";
  let replicas = isSidecar
    ? agents
    : Math.max(2, Math.ceil((agents * number("connections")) / connectionsOfReplica));
  let rates = await ratesOf(work, { replicas, balance });
  // More replicas hit their caches less often, and want more of themselves.
  const mostTries = isSidecar ? 0 : 20;
  for (let tries = 0; tries < mostTries; tries += 1) {
    const wanted = Math.ceil(
      (replicas * busyOf(rates, agents / replicas)) / (1e6 * number("load")),
    );
    if (wanted <= replicas) break;
    replicas = wanted;
    rates = await ratesOf(work, { replicas, balance });
  }
  const own = agents / replicas;
  const tokens = (balance === "any" ? agents : own) * work.targets;
  const cores = (replicas * busyOf(rates, own)) / 1e6;
  const base = isSidecar ? costs.idleProcessMiB : costs.warmProcessMiB;
  const memoryGiB = (replicas * memoryMiBOf(own, tokens, base)) / 1_024;
  // A gateway is given what its replicas may take, a sidecar at least 20 thousandths of a core.
  const reserved = isSidecar ? Math.max(cores / number("load"), agents * 0.02) : replicas;
  const hourly = reserved * number("cpu-price") + memoryGiB * number("memory-price");
  const asks = given.budget === "exact" ? 2 : given.budget === "leased" ? 0.05 : 0;
  return {
    agents,
    layout,
    replicas,
    requests: replicas * (rates.outbound + rates.inbound),
    cores,
    memoryGiB,
    exchangeHits: 1 - rates.exchanged / rates.outbound,
    jwtHits: 1 - rates.verified / rates.inbound,
    idp: replicas * rates.exchanged,
    keySets: (replicas * 60) / 300,
    store: replicas * rates.outbound * asks,
    dollars: hourly * hoursOfMonth,
  };
}

function rowOf(fleet: Fleet): string {
  const share = (value: number): string => `${(100 * value).toFixed(1)} %`;
  const amount = (value: number): string =>
    value >= 10 ? Math.round(value).toLocaleString("en") : value.toFixed(value < 0.1 ? 4 : 2);
  const isOver = fleet.idp > number("idp");
  return [
    fleet.agents.toLocaleString("en"),
    fleet.layout,
    fleet.replicas.toLocaleString("en"),
    amount(fleet.requests),
    amount(fleet.cores),
    amount(fleet.memoryGiB),
    share(fleet.exchangeHits),
    share(fleet.jwtHits),
    `${amount(fleet.idp)}${isOver ? " !" : ""}`,
    amount(fleet.keySets),
    amount(fleet.store),
    amount(fleet.dollars),
  ].join(" | ");
}

async function simulate(): Promise<void> {
  const fleets: Fleet[] = [];
  if (!given.json) {
    process.stdout.write(
      "| agents | layout | proxies | req/s | cores | GiB | exchange hits | JWT hits | IdP tokens/s | key sets/min | store ops/s | $/month |\n" +
        "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n",
    );
  }
  for (const agents of [10, 100, 1_000, 10_000, 100_000, 1_000_000]) {
    for (const layout of ["sidecars", "hash", "any"] as const) {
      const fleet = await fleetOf(agents, layout);
      fleets.push(fleet);
      if (!given.json) process.stdout.write(`| ${rowOf(fleet)} |\n`);
    }
  }
  if (given.json) process.stdout.write(`${JSON.stringify({ costs, fleets })}\n`);
  else process.stdout.write(`! more than --idp ${given.idp} tokens a second\n`);
}

/** Times of messages are kept to some milliseconds, so that one at the end of a token may fall on its other side. */
const tolerance = 0.1;

function isClose({ model, seen, failed }: Checked): boolean {
  const near = (one: number, other: number): boolean =>
    Math.abs(one - other) <= Math.max(3, tolerance * Math.max(one, other));
  return (
    failed === 0 && near(model.exchanged, seen.exchanged) && near(model.verified, seen.verified)
  );
}

async function checkAll(): Promise<void> {
  let isGood = true;
  for (const [agents, replicas, balance] of [
    [10, 1, "hash"],
    [100, 2, "hash"],
    [100, 2, "any"],
  ] as const) {
    // Lives of tokens of seconds in place of hours, so that many end while it runs.
    const work = {
      agents,
      outbound: 20 / agents + 1,
      inbound: 0.5,
      targets: 3,
      userToken: 8,
      issuedToken: 34,
    };
    const checked = await check(work, { seconds: 20, replicas, balance });
    const { model, seen, failed, cpuMs } = checked;
    isGood &&= isClose(checked);
    const all = seen.outbound + seen.inbound;
    process.stdout.write(
      `${agents} agents, ${replicas} proxies, ${balance}: ${all} messages, ${failed} failed; ` +
        `tokens asked for: model ${model.exchanged}, seen ${seen.exchanged}; ` +
        `signatures verified: model ${model.verified}, seen ${seen.verified}; ` +
        `${((cpuMs * 1_000) / all).toFixed(0)} µs a message, cold and on new connections\n`,
    );
  }
  process.stdout.write(isGood ? "the model holds\n" : "the model does NOT hold\n");
  process.exitCode = isGood ? 0 : 1;
}

if (given.measure) {
  for (const [name, cost] of Object.entries(await measureTokens())) {
    process.stdout.write(`${name}: ${cost.toFixed(0)} µs\n`);
  }
} else if (given.check) await checkAll();
else await simulate();
