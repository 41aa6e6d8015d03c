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
