/** session-budget by itself: who is asked when a session has used up its budget, and for how long an approval holds. */
import { describe, expect, test } from "vitest";
import type {
  OperatorFetch,
  OperatorRequest,
  Plugin,
  SessionReader,
  StateStore,
} from "../../../../src/pipeline/plugin.ts";
import { sessionBudget } from "../../../../src/plugins/budgets/session-budget.ts";
import { stateUnavailable } from "../../../../src/state/store.ts";
import { inferenceFact } from "../../../../src/protocols/inference-view.ts";
import { message, PluginBench } from "../../../support/plugin-bench.ts";

const webhook = "http://127.0.0.1:9/approve";
const paused = { max_calls: 1, on_exceed: "pause", pause_webhook: webhook };

const sessions: SessionReader = {
  intentOf: () => undefined,
  isInDoubt: () => false,
  sessionOf: () => "s-1",
  scopeOf: () => ({ session: "s-1" }),
  subjectOf: () => undefined,
};

/** Somebody who answers with this status and body. */
function approver(answer: { status: number; body: string }) {
  const asked: OperatorRequest[] = [];
  const fetch: OperatorFetch = (_url, request) => {
    if (request !== undefined) asked.push(request);
    return Promise.resolve({ status: answer.status, headers: {}, body: Buffer.from(answer.body) });
  };
  return { asked, bench: new PluginBench(fetch) };
}

function made(bench: PluginBench, more: object = {}, shared?: StateStore): Plugin {
  const config = sessionBudget.config?.parse({ redis_url: "redis://r", ...paused, ...more });
  const deps = { ...bench.deps, sessions, ...(shared === undefined ? {} : { shared }) };
  return sessionBudget.create(config as never, deps);
}

/** What is said of a call of a language model in the session. */
async function said(plugin: Plugin): Promise<string | undefined> {
  const context = message({ path: "/v1/chat/completions", method: "POST" });
  context.facts.set(inferenceFact, { api: "openai.chat", model: "m" });
  return (await plugin.onRequest?.(context))?.reason;
}

const approval = { status: 200, body: '{"action":"approve"}' };

test("a session in use is as old as it is, however short it is remembered", async () => {
  const bench = new PluginBench();
  const plugin = made(bench, { on_exceed: "deny", max_calls: 0, max_duration_seconds: 7_200 });
  for (let seconds = 0; seconds < 7_200; seconds += 1_800) {
    expect(await said(plugin)).toBe("within_budget");
    bench.clock.advance(1_800_000);
  }
  expect(await said(plugin)).toBe("budget_exceeded");
  // Twice as long as it is remembered after its last use.
  bench.clock.advance(14_400_000);
  expect(await said(plugin)).toBe("within_budget");
});

describe("an approval", () => {
  test.each([
    ["5m by default", {}, 300_000],
    ["pause_grace_period", { pause_grace_period: "1h" }, 3_600_000],
  ])("holds for %s", async (_what, more, graceMs) => {
    const { asked, bench } = approver(approval);
    const plugin = made(bench, more);
    const reasons = [await said(plugin), await said(plugin)];
    bench.clock.advance(graceMs - 1);
    reasons.push(await said(plugin));
    expect(asked).toHaveLength(1);
    bench.clock.advance(2);
    reasons.push(await said(plugin));
    expect(asked).toHaveLength(2);
    expect(reasons).toEqual([
      "within_budget",
      "pause_approved",
      "pause_grace_window",
      "pause_approved",
    ]);
  });

  test("holds for nothing else with pause_grace_period: 0s", async () => {
    const { asked, bench } = approver(approval);
    const plugin = made(bench, { pause_grace_period: "0s" });
    for (let at = 0; at < 3; at += 1) await said(plugin);
    expect(asked).toHaveLength(2);
  });

  test("holds in other threads, and after a reload", async () => {
    const { asked, bench } = approver(approval);
    const [one, other] = [made(bench), made(bench)];
    expect([await said(one), await said(one), await said(other)]).toEqual([
      "within_budget",
      "pause_approved",
      "pause_grace_window",
    ]);
    expect(asked).toHaveLength(1);
  });

  test("that nobody can remember is asked for again", async () => {
    const { asked, bench } = approver(approval);
    const away = (): never => {
      throw stateUnavailable("the thread in control does not respond");
    };
    const plugin = made(bench, {}, { ...bench.deps.shared, get: away, set: away });
    expect([await said(plugin), await said(plugin), await said(plugin)]).toEqual([
      "within_budget",
      "pause_approved",
      "pause_approved",
    ]);
    expect(asked).toHaveLength(2);
  });
});

describe("without an approval", () => {
  test.each([
    ["another action is a denial", 200, '{"action":"wait"}', "pause_denied"],
    ["another status is no answer: pause_timeout_action", 500, approval.body, "pause_approved"],
    ["no JSON is no answer: pause_timeout_action", 200, "approve", "pause_approved"],
  ])("%s", async (_what, status, body, allowed) => {
    for (const action of [undefined, "deny", "allow"]) {
      const { bench } = approver({ status, body });
      const plugin = made(bench, action === undefined ? {} : { pause_timeout_action: action });
      await said(plugin);
      expect(await said(plugin), action).toBe(action === "allow" ? allowed : "pause_denied");
    }
  });

  test.each([
    ["30s by default", {}, 30_000],
    ["pause_timeout", { pause_timeout: "250ms" }, 250],
  ])("nobody is waited for longer than %s", async (_what, more, timeoutMs) => {
    const { asked, bench } = approver(approval);
    const plugin = made(bench, more);
    await said(plugin);
    await said(plugin);
    expect(asked).toEqual([expect.objectContaining({ timeoutMs })]);
  });

  test("what was let go without one is asked about again", async () => {
    const { asked, bench } = approver({ status: 500, body: "" });
    const plugin = made(bench, { pause_timeout_action: "allow" });
    for (let at = 0; at < 3; at += 1) await said(plugin);
    expect(asked).toHaveLength(2);
  });
});

describe("a session", () => {
  test.each([
    ["two hours by default", {}, 7_200_000],
    ["two hours with 0", { session_ttl_seconds: 0 }, 7_200_000],
    ["session_ttl_seconds", { session_ttl_seconds: 60 }, 60_000],
  ])("is remembered for %s after its last use", async (_what, more, ttlMs) => {
    const { bench } = approver({ status: 200, body: "{}" });
    const plugin = made(bench, { ...more, on_exceed: "deny" });
    expect(await said(plugin)).toBe("within_budget");
    bench.clock.advance(ttlMs - 1);
    expect(await said(plugin)).toBe("budget_exceeded");
    bench.clock.advance(ttlMs + 1);
    expect(await said(plugin)).toBe("within_budget");
  });
});

test("a server that is away stops nobody, and a file that asks for the contrary is refused in words", () => {
  const parse = (word: string) =>
    sessionBudget.config?.safeParse({
      redis_url: "redis://r",
      max_calls: 1,
      redis_unavailable: word,
    });
  expect(parse("fail_open")).toMatchObject({ success: true });
  expect(parse("fail_closed")?.error?.issues).toMatchObject([
    { path: ["redis_unavailable"], message: expect.stringContaining("use budgets with when_away") },
  ]);
});
