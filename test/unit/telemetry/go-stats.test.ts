import { describe, expect, test } from "vitest";
import {
  GoStatsCounter,
  type CountedInvocation,
  type GoStats,
} from "../../../src/telemetry/go-stats.ts";

const empty: GoStats = {
  inbound_approvals: {},
  inbound_denials: {},
  outbound_approvals: {},
  outbound_denials: {},
  outbound_replace_tokens: {},
};

function counted(
  plugin: string,
  ...steps: readonly [CountedInvocation["action"], string][]
): GoStats {
  const counter = new GoStatsCounter();
  for (const [action, reason] of steps) counter.count({ plugin, action, reason });
  return counter.snapshot();
}

describe("statistics in the Go shapes", () => {
  test("five empty maps before anything happened", () => {
    expect(counted("jwt-validation")).toEqual(empty);
  });

  test("D28: two authorized, one bypass, one without header and two failed tokens", () => {
    const stats = counted(
      "jwt-validation",
      ["allow", "authorized"],
      ["allow", "authorized"],
      ["skip", "path_bypass"],
      ["deny", "no_header"],
      ["deny", "jwt_failed"],
      ["deny", "jwt_failed"],
    );
    expect(stats).toEqual({
      ...empty,
      inbound_approvals: { authorized: 2, passthrough: 1 },
      inbound_denials: { no_header: 1, jwt_failed: 2 },
    });
  });

  test("Z4: one allow and one deny are not zero", () => {
    const stats = counted("jwt-validation", ["allow", "authorized"], ["deny", "no_header"]);
    expect(stats.inbound_approvals).toEqual({ authorized: 1 });
    expect(stats.inbound_denials).toEqual({ no_header: 1 });
  });

  test.each([
    ["skip", "no_matching_route", { outbound_approvals: { no_matching_route: 1 } }],
    ["skip", "passthrough", { outbound_approvals: { passthrough: 1 } }],
    ["allow", "no_token_policy", { outbound_approvals: { no_token_policy: 1 } }],
    ["deny", "no_token", { outbound_denials: { no_token: 1 } }],
    ["deny", "token_exchange_failed", { outbound_denials: { token_exchange_failed: 1 } }],
    ["modify", "token_replaced", { outbound_replace_tokens: { replace_token: 1 } }],
    ["modify", "cache_hit", { outbound_replace_tokens: { cache_hit: 1 } }],
    ["observe", "anything", {}],
  ] as const)("token-exchange %s/%s", (action, reason, expected) => {
    expect(counted("token-exchange", [action, reason])).toEqual({ ...empty, ...expected });
  });

  test("other plugins and muted refusals are not counted", () => {
    const counter = new GoStatsCounter();
    counter.count({ plugin: "opa", action: "deny", reason: "no_header" });
    counter.count({
      plugin: "jwt-validation",
      action: "deny",
      reason: "no_header",
      shadow: true,
    });
    expect(counter.snapshot()).toEqual(empty);
  });

  test("endless reasons share one counter", () => {
    const counter = new GoStatsCounter();
    for (let index = 0; index < 1_000; index += 1) {
      counter.count({ plugin: "jwt-validation", action: "deny", reason: `r${index}` });
    }
    const denials = counter.snapshot().inbound_denials;
    expect(Object.keys(denials).length).toBeLessThan(70);
    expect(Object.values(denials).reduce((sum, count) => sum + count, 0)).toBe(1_000);
  });
});
