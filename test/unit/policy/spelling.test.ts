import { describe, expect, test } from "vitest";
import type { PolicyDecision } from "../../../src/policy/decision.ts";
import type { Inspection } from "../../../src/policy/endpoint.ts";
import { decideSpelling } from "../../../src/policy/spelling.ts";

const said = (effect: PolicyDecision["effect"], more: Partial<PolicyDecision> = {}) => ({
  effect,
  code: effect === "allow" ? ("allowed" as const) : ("not-permitted" as const),
  reason: effect,
  ...more,
});
const literal = { inspection: { allowsAmbiguousPath: true } as Inspection };

/** What comes of readings of which each has its decision. */
function decide(
  decisions: readonly PolicyDecision[],
  more: { readonly remote?: PolicyDecision; readonly ambiguous?: string } = {},
): PolicyDecision {
  const { remote, ambiguous } = more;
  const byPath = new Map(decisions.map((decision, at) => [`/${at}`, decision]));
  if (remote !== undefined) byPath.set("/remote", remote);
  const [first = "/0", ...rest] = decisions.map((_decision, at) => `/${at}`);
  return decideSpelling(
    {
      readings: [first, ...rest],
      remote: remote === undefined ? [] : ["/remote"],
      ...(ambiguous === undefined ? {} : { ambiguous }),
    },
    (path) => byPath.get(path) ?? said("deny"),
  );
}

describe("one decision about all readings", () => {
  test("is theirs where they agree", () => {
    expect(decide([said("allow"), said("allow")])).toMatchObject({ effect: "allow" });
    expect(decide([said("deny"), said("deny")])).toMatchObject({ code: "not-permitted" });
  });

  test("records the violation of any", () => {
    expect(decide([said("allow"), said("audit")])).toMatchObject({ effect: "audit" });
    expect(decide([said("audit"), said("allow")])).toMatchObject({ effect: "audit" });
  });

  test.each([
    [said("allow"), said("deny", { rule: "r" })],
    [said("deny", { rule: "r" }), said("allow")],
    [said("audit"), said("deny", { rule: "r" })],
  ])("is a refusal that names the rule and the key where they do not", (one, other) => {
    expect(decide([one, other])).toMatchObject({
      effect: "deny",
      code: "ambiguous-path",
      rule: "r",
      reason: expect.stringContaining("allow_ambiguous_path"),
    });
  });

  test("is the spelling's where the endpoint of every reading takes paths literally", () => {
    const readings = [said("allow", literal), said("deny", literal)];
    expect(decide(readings, { ambiguous: "dots" })).toMatchObject({ effect: "allow" });
    expect(decide([said("allow", literal), said("deny")])).toMatchObject({
      code: "ambiguous-path",
    });
    expect(decide([said("allow", literal), said("allow")], { ambiguous: "dots" })).toMatchObject({
      code: "ambiguous-path",
    });
  });

  test("hears of a remote reading only where a deny rule names it", () => {
    const rule = { code: "deny-rule" as const };
    expect(decide([said("allow")], { remote: said("deny") })).toMatchObject({ effect: "allow" });
    expect(decide([said("allow")], { remote: said("deny", rule) })).toMatchObject({
      code: "ambiguous-path",
    });
    expect(decide([said("deny")], { remote: said("deny", rule) })).toMatchObject({
      code: "not-permitted",
    });
  });
});
