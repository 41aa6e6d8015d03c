import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readBundle, unpackBundle } from "../../../src/opa/bundle.ts";
import type { Evaluation } from "../../../src/opa/decision-engine.ts";
import { WasmEvaluator } from "../../../src/opa/wasm-evaluator.ts";
import { compilePolicy } from "../../../src/opa/wasm-policy.ts";
import { eventually } from "../../support/eventually.ts";
import { fixture } from "../../support/opa-cases.ts";

const policy = compilePolicy(readBundle(unpackBundle(fixture("cases").bytes)));
const start = (timeoutMs: number): Promise<WasmEvaluator> =>
  WasmEvaluator.start(policy, { timeoutMs, onKilled: () => undefined });
const ask = (evaluator: WasmEvaluator, path: string): Promise<Evaluation> =>
  evaluator.evaluate("authbridge/outbound/request", JSON.stringify({ method: "GET", path }));

describe("a thread", () => {
  let evaluator: WasmEvaluator;
  beforeAll(async () => {
    evaluator = await start(5_000);
  });
  afterAll(() => evaluator.close());

  test("answers many questions, each its own", async () => {
    const kinds = ["true", "false", "nil", "number"];
    const values = [true, false, null, 1];
    const asked = Array.from({ length: 800 }, (_, index) => ask(evaluator, `/${kinds[index % 4]}`));
    const answers = await Promise.all(asked);
    expect(answers.map((answer) => answer.kind === "value" && answer.value)).toEqual(
      asked.map((_, index) => values[index % 4]),
    );
  });

  test("goes on after an evaluation that failed", async () => {
    expect(await ask(evaluator, "/conflict")).toMatchObject({ kind: "fault", fault: "error" });
    expect(await ask(evaluator, "/true")).toEqual({ kind: "value", value: true });
  });

  test("refuses what is too much to wait for", async () => {
    const asked = Array.from({ length: 1_030 }, () => ask(evaluator, "/true"));
    const faults = (await Promise.all(asked)).filter(({ kind }) => kind === "fault");
    expect(faults).toHaveLength(6);
    expect(faults[0]).toMatchObject({ fault: "overloaded" });
    const large = JSON.stringify({ method: "GET", path: `/${"x".repeat(20 * 1024 * 1024)}` });
    const both = [1, 2].map(() => evaluator.evaluate("authbridge/outbound/request", large));
    expect((await Promise.all(both))[1]).toMatchObject({ fault: "overloaded" });
  });

  test("keeps its memory within the bound", async () => {
    // Twice the input is more than 128 MiB leave room for.
    const input = JSON.stringify({
      method: "GET",
      path: "/true",
      headers: { a: "\\u0041".repeat(4 * 1024 * 1024) },
    });
    const answer = await evaluator.evaluate("authbridge/outbound/request", input);
    expect(["value", "fault"]).toContain(answer.kind);
    expect(await ask(evaluator, "/true")).toEqual({ kind: "value", value: true });
  });
});

test("an evaluation without end is ended, and those that waited behind it are answered", async () => {
  const waiting: Promise<Evaluation>[] = [];
  const evaluator = await WasmEvaluator.start(policy, {
    timeoutMs: 2_000,
    onKilled: () => waiting.push(ask(evaluator, "/true"), ask(evaluator, "/false")),
  });
  expect(await ask(evaluator, "/slow")).toMatchObject({ kind: "fault", fault: "timeout" });
  await eventually(() => waiting.length === 2);
  expect(await Promise.all(waiting)).toEqual([
    { kind: "value", value: true },
    { kind: "value", value: false },
  ]);
  evaluator.close();
});

test("a thread is not ended while it starts, which takes longer than a decision may", async () => {
  const timeoutMs = 20;
  const evaluator = await WasmEvaluator.start(policy, { timeoutMs, onKilled: () => undefined });
  expect(await ask(evaluator, "/slow")).toMatchObject({ kind: "fault", fault: "timeout" });
  const until = performance.now() + 8_000;
  let answer: Evaluation;
  do answer = await ask(evaluator, "/true");
  while (answer.kind === "fault" && performance.now() < until);
  expect(answer).toEqual({ kind: "value", value: true });
  evaluator.close();
});

test("a thread that is never idle is not ended for it", async () => {
  const timeoutMs = 300;
  let killed = 0;
  const evaluator = await WasmEvaluator.start(policy, { timeoutMs, onKilled: () => (killed += 1) });
  const until = performance.now() + 2 * timeoutMs;
  let asked = [ask(evaluator, "/true"), ask(evaluator, "/true")];
  while (performance.now() < until) {
    const [first, ...others] = asked;
    await first;
    asked = [...others, ask(evaluator, "/true")];
  }
  await Promise.all(asked);
  expect(killed).toBe(0);
  evaluator.close();
});

test("a closed evaluator answers what it was asked before", async () => {
  const evaluator = await start(5_000);
  const asked = ask(evaluator, "/true");
  evaluator.close();
  expect(await asked).toEqual({ kind: "value", value: true });
});
