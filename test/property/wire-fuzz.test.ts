/** The inputs that `npm run fuzz` has kept because they reached something new, and as many mutations of each. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { Dice, mutated, requestTarget, responseTarget } from "../support/wire-fuzz.ts";

describe.each([requestTarget, responseTarget])("kept $name", (target) => {
  const file = new URL(`../fixtures/wire/${target.name}.json`, import.meta.url);
  const texts = JSON.parse(readFileSync(file, "utf8")) as readonly string[];
  const inputs = texts.map((text) => Buffer.from(text, "latin1"));

  test("there are some", () => {
    expect(inputs.length).toBeGreaterThan(10);
  });

  test.each(texts.map((text, at) => [at, JSON.stringify(text).slice(0, 80)] as const))(
    "%i: %s",
    async (at) => {
      const dice = new Dice(at + 1);
      const input = inputs[at] ?? Buffer.alloc(0);
      expect((await target.check(input, dice)).problem).toBeUndefined();
      for (let left = 10; left > 0; left -= 1) {
        const one = mutated(input, dice.oneOf(inputs), dice);
        const { problem } = await target.check(one, dice);
        expect(problem, JSON.stringify(one.toString("latin1"))).toBeUndefined();
      }
    },
  );
});
