/** Views of a message: what stands under a key has the key's type, and an observer's view is everybody's. */
import { expect, expectTypeOf, test } from "vitest";
import { factKey, observe, skip } from "../../../src/pipeline/plugin.ts";
import { pipelineOf } from "../../support/pipeline-of.ts";
import { message } from "../../support/plugin-bench.ts";

interface View {
  readonly words: number;
}

const key = factKey<View>("mine");

test("a key finds what was left under it, and a plain name finds it untyped", () => {
  const { facts } = message();
  expectTypeOf(facts.get(key)).toEqualTypeOf<View | undefined>();
  expectTypeOf(facts.get("mine")).toEqualTypeOf<unknown>();
  expect(facts.get(key)).toBeUndefined();
  facts.set(key, { words: 1 });
  facts.set("mine/event", "anything");
  // @ts-expect-error -- a view of another type
  facts.set(factKey<View>("other"), "words");
  expect(facts.get(key)?.words).toBe(1);
  expect(facts.get("mine")).toBe(facts.get(key));
});

test("there are no facts until somebody leaves one", () => {
  const context = message();
  expect(context.hasFacts).toBe(false);
  context.facts.set(key, { words: 1 });
  expect(context.hasFacts).toBe(true);
});

test("a later step finds what a parser left, also one that only observes", async () => {
  const found: (View | undefined)[] = [];
  const parser = {
    onRequest: ({ facts }: ReturnType<typeof message>) => {
      facts.set(key, { words: 2 });
      return observe("read");
    },
  };
  const reader = {
    onRequest: ({ facts }: ReturnType<typeof message>) => {
      found.push(facts.get(key));
      return skip("read");
    },
  };
  const observing = { plugin: parser, onError: "observe" } as const;
  await pipelineOf([observing, reader, { plugin: reader, onError: "observe" }]).runRequest(
    message(),
  );
  expect(found).toEqual([{ words: 2 }, { words: 2 }]);
});
