/** budgets by itself: whose budget it is, what is reserved, and what a check costs where it has to be fast. */
import { describe, expect, test } from "vitest";
import { allow, type Plugin, type SessionReader } from "../../../../src/pipeline/plugin.ts";
import { Limit, type LimitOptions, Subject } from "../../../../src/plugins/budgets/limit.ts";
import { budgets } from "../../../../src/plugins/budgets/plugin.ts";
import { inferenceFact, type InferenceView } from "../../../../src/protocols/inference-view.ts";
import {
  message,
  type MessageShape,
  PluginBench,
  problemsOf,
} from "../../../support/plugin-bench.ts";

const request = { name: "n", unit: "requests", limit: 1, window: "hour" };
const ended = { status: 200, durationMs: 1 };

function made(limits: readonly object[], bench = new PluginBench(), rest: object = {}): Plugin {
  return bench.create(budgets, { limits, ...rest });
}

/** A call of a model, as its parser left it. */
function call(view: Partial<InferenceView>, shape: MessageShape = {}) {
  const context = message({ path: "/v1/chat/completions", method: "POST", ...shape });
  context.facts.set(inferenceFact, { api: "openai.chat", ...view });
  return context;
}

const said = async (plugin: Plugin, context = message()): Promise<string | undefined> =>
  (await plugin.onRequest?.(context))?.reason;

test.each([
  [{ ...request, by: ["caller"] }, { client: { caller: "a" } }, { client: { caller: "b" } }],
  [{ ...request, by: ["route"] }, { to: "a.example:80" }, { to: "b.example:80" }],
  [{ ...request, hosts: ["a.example"] }, { to: "a.example:80" }, { to: "b.example:80" }],
])("one budget each: %j", async (limit, one, other) => {
  const plugin = made([limit]);
  const reasons = [one, one, other].map((shape) => said(plugin, message(shape)));
  const [first, second, third] = await Promise.all(reasons);
  expect([first, second]).toEqual(["within_budget", "budget_exceeded"]);
  expect(third).not.toBe("budget_exceeded");
});

test("subject and session are those that the message follows from, and nobody's is one budget", () => {
  const sessions: SessionReader = {
    intentOf: () => undefined,
    isInDoubt: () => false,
    sessionOf: () => "s",
    scopeOf: () => ({ session: "s" }),
    subjectOf: () => "alice",
  };
  const options: LimitOptions = {
    name: "l",
    unit: "requests",
    limit: 1,
    window: "lifetime",
    by: ["subject", "session"],
    isHard: true,
    hosts: [],
    models: [],
    refusesAll: false,
    skipsUnknown: false,
    forgetAfterMs: undefined,
  };
  const limit = new Limit(options, "i");
  const context = message();
  const tied = limit.placeOf(new Subject(context, sessions, undefined), 0);
  expect(tied?.values).toEqual(["alice", "s"]);
  expect(limit.placeOf(new Subject(context, undefined, undefined), 0)?.values).toEqual(["", ""]);
  const skipping = new Limit({ ...options, skipsUnknown: true }, "i");
  expect(skipping.placeOf(new Subject(context, undefined, undefined), 0)).toBeUndefined();
});

test("a call that nobody could read is refused where the limit counts the host, whatever its models", async () => {
  const limit = { ...request, unit: "tokens", hosts: ["a.example"], models: ["gpt-*"] };
  const plugin = made([limit]);
  const unread = (to: string) => message({ path: "/v1/chat/completions", method: "POST", to });
  expect(await said(plugin, unread("a.example:80"))).toBe("call_unread");
  expect(await said(plugin, unread("b.example:80"))).toBeUndefined();
});

test("what the request bounds is reserved, and what calls took is expected of the next ones", async () => {
  const bench = new PluginBench();
  const plugin = made([{ ...request, unit: "tokens", limit: 10_000 }], bench, { wait: "0s" });
  const used = (): number | undefined => {
    const view = plugin.budgets?.() as
      { readonly limits: readonly { readonly used: number }[] } | undefined;
    return view?.limits[0]?.used;
  };
  const context = call({ model: "m", maxTokens: 500 });
  await said(plugin, context);
  expect(used()).toBe(500);
  context.facts.set(inferenceFact, { api: "openai.chat", model: "m", totalTokens: 4_000 });
  context.onward = { sentAt: 0, status: 200 };
  await plugin.onFinish?.(context, ended, AbortSignal.timeout(1_000));
  expect(used()).toBe(4_000);
  await said(plugin, call({ model: "m", maxTokens: 500 }));
  expect(used()).toBe(8_000);
  // Of another model nothing is known.
  await said(plugin, call({ model: "other", maxTokens: 500 }));
  expect(used()).toBe(8_500);
});

test.each([
  ["1e300, which the provider refuses", 1e300, 400],
  ["the largest whole number, which the provider refuses", Number.MAX_SAFE_INTEGER, 400],
  ["less than none, and leaves before it says anything", -1e300, undefined],
])("what others took stays counted when a call asks for %s", async (_what, maxTokens, status) => {
  const plugin = made([{ ...request, unit: "tokens", limit: 10_000 }], undefined, { wait: "0s" });
  const plain = call({ model: "m" });
  await said(plugin, plain);
  plain.facts.set(inferenceFact, { api: "openai.chat", model: "m", totalTokens: 4_000 });
  plain.onward = { sentAt: 0, status: 200 };
  await plugin.onFinish?.(plain, ended, AbortSignal.timeout(1_000));
  const odd = call({ model: "m", maxTokens });
  expect(await said(plugin, odd)).toBe("within_budget");
  odd.onward = { sentAt: 0, ...(status === undefined ? {} : { status }) };
  const outcome = status === undefined ? { ...ended, cancelled: true as const } : ended;
  await plugin.onFinish?.(odd, outcome, AbortSignal.timeout(1_000));
  await said(plugin, call({ model: "m", maxTokens: 1 }));
  const view = plugin.budgets?.() as { readonly limits: readonly { readonly used: number }[] };
  expect(view.limits[0]?.used).toBeGreaterThan(7_900);
});

test("what a server says that it charges is not expected of others, and stays a number that is counted with", async () => {
  const bench = new PluginBench();
  const limit = { ...request, unit: "cost", limit: 10 };
  const plugin = made([limit], bench, { wait: "0s", unknown_models: "allow" });
  const costing = async (costUsd: number, to: string): Promise<string | undefined> => {
    const context = call({ model: "m" }, { to });
    const reason = await said(plugin, context);
    context.facts.set(inferenceFact, { api: "openai.chat", model: "m", totalTokens: 1, costUsd });
    context.onward = { sentAt: 0, status: 200 };
    await plugin.onFinish?.(context, ended, AbortSignal.timeout(1_000));
    return reason;
  };
  await costing(1e300, "odd.example:443");
  expect(await costing(1, "a.example:443")).toBe("budget_exceeded");
  bench.clock.advance(3_600_000);
  expect(await costing(1, "odd.example:443")).toBe("within_budget");
  const shown = plugin.budgets?.() as { readonly limits: readonly object[] } | undefined;
  expect(shown?.limits.at(-1)).toMatchObject({ used: 1_000_000_000 });
  // Two at once, of whom neither is expected to take what is left.
  const others = [1, 2].map(() => said(plugin, call({ model: "m" }, { to: "a.example:443" })));
  expect(await Promise.all(others)).toEqual(["within_budget", "within_budget"]);
});

test("what a person has let go waits for calls under way as long as any other", async () => {
  const bench = new PluginBench();
  const asked = Promise.withResolvers<void>();
  const ask = async () => {
    bench.clock.advance(60_000);
    asked.resolve();
    return allow("approved");
  };
  const approvals = { gate: () => ({ ask, rebase: () => undefined }) };
  const limits = [
    { ...request, mode: "ask" },
    { name: "t", unit: "tokens", limit: 1_000, window: "day" },
  ];
  const config = budgets.config?.parse({ limits, reserve_tokens: 1_000 });
  const plugin = budgets.create(config as never, { ...bench.deps, approvals });
  const first = call({ model: "m" });
  expect(await said(plugin, first)).toBe("within_budget");
  const second = said(plugin, call({ model: "m" }));
  await asked.promise;
  first.onward = { sentAt: 0, status: 200 };
  first.facts.set(inferenceFact, { api: "openai.chat", model: "m", totalTokens: 10 });
  await plugin.onFinish?.(first, ended, AbortSignal.timeout(1_000));
  expect(await second).toBe("approved");
});

test("a message that another plugin refuses gives its share back", async () => {
  const plugin = made([request]);
  const context = message();
  await said(plugin, context);
  const refused = { ...ended, status: 403, deniedBy: "other" };
  await plugin.onFinish?.(context, refused, AbortSignal.timeout(1_000));
  expect(await said(plugin)).toBe("within_budget");
});

test("all limits of a message are met, or none counts it", async () => {
  const wide = { ...request, name: "wide", limit: 2 };
  const plugin = made([wide, { ...request, by: ["caller"] }]);
  const by = (caller: string): Promise<string | undefined> =>
    said(plugin, message({ client: { caller } }));
  expect([await by("a"), await by("a"), await by("b"), await by("c")]).toEqual([
    "within_budget",
    "budget_exceeded",
    "within_budget",
    "budget_exceeded",
  ]);
});

test("a window that ends begins anew", async () => {
  const bench = new PluginBench();
  const plugin = made([{ ...request, window: "minute" }], bench);
  expect([await said(plugin), await said(plugin)]).toEqual(["within_budget", "budget_exceeded"]);
  bench.clock.advance(60_000);
  expect(await said(plugin)).toBe("within_budget");
});

test("a rehearsal counts nothing", async () => {
  const plugin = made([request]);
  for (let at = 0; at < 3; at += 1) await plugin.rehearseRequest?.(message());
  expect(await said(plugin)).toBe("within_budget");
  expect(await plugin.rehearseRequest?.(message())).toMatchObject({ action: "deny" });
});

test("consent is somebody else's: a budget only refuses", async () => {
  expect(await made([request]).onRequest?.(message())).toMatchObject({ action: "observe" });
});

describe("what a file may not say", () => {
  test.each([
    [[], "limits"],
    [[{ ...request, limit: 1.5 }], "limits.0.limit: must be a whole number"],
    [[request, request], "limits.1.name: is the name of another limit"],
    [[{ ...request, forget_after: "1h" }], "limits.0.forget_after: is only for window: lifetime"],
    [[{ ...request, unit: "cost", limit: 1e9 }], "limits.0.limit: must be at most"],
    [[{ ...request, name: "a b" }], "limits.0.name: must be a word"],
    [[{ ...request, hosts: ["["] }], "limits.0.hosts.0"],
  ])("%j", (limits, problem) => {
    expect(problemsOf(budgets, { limits }).join("\n")).toContain(problem);
  });
});
