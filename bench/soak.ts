/**
 * `npm run soak`: everything that goes wrong in operation, in stages, with a verdict and figures for each.
 *
 * `--short` does it with small counts; `--minutes N` shares so much time out among the stages, whatever the counts; `--stage TEXT`
 * runs the stages whose names contain it; `--json FILE` keeps the figures; `--seed-bug KIND` puts a bug of that kind into the
 * proxy, and the run has to fail by it.
 */
import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import "./soak/built.ts";
import { attackPhase } from "./attacks.ts";
import { type Bug, bugs, type Extent, Ground } from "./soak/ground.ts";
import { Ledger, type Verdict } from "./soak/ledger.ts";
import { Pace } from "./soak/pace.ts";
import type { Figures, Stage } from "./soak/stage.ts";
import { stages } from "./soak/stages.ts";

const long: Extent = {
  tunnels: 10_000,
  idle: 5_000,
  requests: 1_000_000,
  reloads: 300,
  cycles: 10,
  cuts: 10_000,
  attackSeconds: 60,
};
const short: Extent = {
  tunnels: 1_000,
  idle: 500,
  requests: 20_000,
  reloads: 20,
  cycles: 4,
  cuts: 8,
  attackSeconds: 0,
};

interface Result {
  readonly stage: string;
  readonly asked: number;
  readonly seconds: number;
  readonly figures: Figures;
  readonly verdicts: readonly Verdict[];
}

function optionsOf(args: readonly string[]) {
  const { values } = parseArgs({
    args: [...args],
    options: {
      short: { type: "boolean", default: false },
      stage: { type: "string", default: "" },
      json: { type: "string" },
      requests: { type: "string" },
      minutes: { type: "string" },
      "seed-bug": { type: "string" },
    },
  });
  const bug = values["seed-bug"];
  if (bug !== undefined && !Object.hasOwn(bugs, bug)) {
    throw new Error(`--seed-bug: one of ${Object.keys(bugs).join(", ")}`);
  }
  const extent = values.short ? short : long;
  const requests = values.requests === undefined ? extent.requests : Number(values.requests);
  const minutes = values.minutes === undefined ? undefined : Number(values.minutes);
  if (minutes !== undefined && !(minutes > 0)) throw new Error("--minutes: a number");
  return { ...values, minutes, bug: bug as Bug | undefined, extent: { ...extent, requests } };
}

/** Seconds that one of the stages that are left may take; what one takes longer, those behind it do without. */
function secondsOf(left: readonly Stage[], endsAt: number): number {
  const weights = left.reduce((sum, { weight }) => sum + weight, 0);
  return Math.max(0, (endsAt - performance.now()) / 1_000) * ((left[0]?.weight ?? 0) / weights);
}

async function runStage(stage: Stage, share: number | undefined): Promise<Result> {
  const ledger = new Ledger(bug === undefined);
  const ground = await new Ground(bug).open();
  const startedAt = performance.now();
  const pace = new Pace(extent.cycles, share);
  let figures: Figures = {};
  try {
    figures = await stage.run({ ground, ledger, extent, pace });
  } catch (error) {
    ledger.lost(`the stage ended early: ${error instanceof Error ? error.stack : String(error)}`);
  } finally {
    await ground.close();
  }
  const seconds = (performance.now() - startedAt) / 1_000;
  return { stage: stage.name, asked: ledger.asked, seconds, figures, verdicts: ledger.verdicts() };
}

function rowOf({ stage, asked, seconds, figures, verdicts }: Result): string {
  const words = Object.entries(figures).map(([name, value]) => `${name} ${value}`);
  const cells = verdicts.map(({ isKept, said }) => (isKept ? said : `**FAILED** ${said}`));
  return `| ${[stage, asked, seconds.toFixed(0), words.join(", "), ...cells].join(" | ")} |`;
}

const { extent, bug, json, minutes, stage: wanted } = optionsOf(process.argv.slice(2));
const results: Result[] = [];
const chosen = stages.filter(({ name }) => name.includes(wanted));
const reserve = extent.attackSeconds > 0 && wanted === "" ? extent.attackSeconds + 30 : 0;
const endsAt = minutes === undefined ? undefined : (minutes * 60 - reserve) * 1_000;
for (const [at, stage] of chosen.entries()) {
  const seconds = endsAt === undefined ? undefined : secondsOf(chosen.slice(at), endsAt);
  const result = await runStage(stage, seconds);
  results.push(result);
  process.stdout.write(`${rowOf(result)}\n`);
}
const head =
  "| stage | answers | s | figures | lost | wrong bytes | rejections | growth | refusals counted |";
process.stdout.write(
  `\n${head}\n| ${"--- | ".repeat(9).trim()}\n${results.map(rowOf).join("\n")}\n\n`,
);
if (json !== undefined)
  writeFileSync(json, JSON.stringify({ extent, minutes, bug, results }, null, 2));
const broken = results.flatMap(({ stage, verdicts }) =>
  verdicts.filter(({ isKept }) => !isKept).map(({ promise }) => `${promise} (${stage})`),
);
if (extent.attackSeconds > 0 && wanted === "" && !(await attackPhase(extent.attackSeconds))) {
  broken.push("the attacks were not borne");
}
process.stdout.write(
  broken.length === 0 && results.length > 0
    ? `soak passed: ${results.length} stages kept every promise\n`
    : `soak FAILED: ${broken.join(", ") || "no stage has such a name"}\n`,
);
process.exit(broken.length === 0 && results.length > 0 ? 0 : 1);
