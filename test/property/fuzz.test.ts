/** The inputs that `npm run fuzz` has kept because they reached something new, the seeds, and mutations of each. */
import { existsSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { loadTarget, targetNames } from "../fuzz/targets.ts";
import { Dice, mutated } from "../support/mutation.ts";

const mutations = 10;

function keptOf(name: string): Buffer[] {
  const file = new URL(`../fixtures/fuzz/${name}.json`, import.meta.url);
  if (!existsSync(file)) return [];
  return (JSON.parse(readFileSync(file, "utf8")) as readonly string[]).map((text) =>
    Buffer.from(text, "base64"),
  );
}

describe.each(targetNames)("%s", (name) => {
  const kept = keptOf(name);

  test("holds for what was kept, and for what is nearly that", async () => {
    const target = await loadTarget(name);
    const inputs = [...target.seeds, ...kept];
    for (const [at, input] of inputs.entries()) {
      const dice = new Dice(at + 1);
      const { problem } = await target.check(input, dice);
      expect(problem, input.toString("base64")).toBeUndefined();
      for (let left = mutations; left > 0; left -= 1) {
        const one = mutated(input, dice.oneOf(inputs), dice, target.words);
        const found = await target.check(one, dice);
        expect(found.problem, one.toString("base64").slice(0, 2_000)).toBeUndefined();
      }
    }
  });
});
