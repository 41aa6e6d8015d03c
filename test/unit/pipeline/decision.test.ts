import { describe, expect, test } from "vitest";
import {
  allow,
  consents,
  type Decision,
  deny,
  type Denial,
  exempt,
  type Invocation,
  isUnavailable,
  modify,
  observe,
  refusingStep,
  replaceFrame,
  respond,
  skip,
} from "../../../src/pipeline/decision.ts";

const denial: Denial = { code: "policy.forbidden", message: "no", plugin: "policy" };

test.each<[name: string, decision: Decision, isConsent: boolean]>([
  ["allow", allow("x"), true],
  ["modify", modify("x"), true],
  ["a replaced frame", replaceFrame("x", undefined), true],
  ["an exemption of the file", exempt("x"), true],
  ["skip", skip("x"), false],
  ["observe", observe("x"), false],
  ["deny", deny("x", denial), false],
  ["respond", respond("x", { status: 200, headers: {}, body: Buffer.alloc(0) }), false],
])("%s consents: %#", (_name, decision, isConsent) => {
  expect(consents(decision)).toBe(isConsent);
});

test("a refusal may have a finer word beside its reason", () => {
  expect(deny("claims", denial)).not.toHaveProperty("cause");
  expect(deny({ reason: "claims", cause: "issuer_mismatch" }, denial)).toMatchObject({
    reason: "claims",
    cause: "issuer_mismatch",
  });
});

describe("a denial means that a check could not be made", () => {
  test.each<[what: string, denial: Partial<Denial>, isFailure: boolean]>([
    ["where its code has a status of 5xx", { code: "upstream.timeout" }, true],
    ["where its own status is 5xx", { status: 503 }, true],
    ["where the plugin says so", { unavailable: true }, true],
    ["not where the plugin says otherwise", { status: 503, unavailable: false }, false],
    ["not for a verdict", {}, false],
    [
      "not where its own status is 4xx, whatever the code",
      { code: "upstream.timeout", status: 403 },
      false,
    ],
    [
      "not for a code that nobody declared, although clients get 500",
      { code: "plugin.own" },
      false,
    ],
    [
      "not where no plugin made it",
      { code: "upstream.timeout", plugin: undefined as never },
      false,
    ],
  ])("%s", (_what, over, isFailure) => {
    expect(isUnavailable({ ...denial, ...over })).toBe(isFailure);
  });
});

describe("the record of a refusal", () => {
  const step = (plugin: string, over: Partial<Invocation> = {}): Invocation => ({
    plugin,
    action: "deny",
    phase: "request",
    reason: "x",
    ...over,
  });

  test("is the last one in which its plugin denied", () => {
    const last = step("policy", { phase: "response" });
    const steps = [step("policy"), last, step("policy", { action: "allow" }), step("other")];
    expect(refusingStep(steps, denial)).toBe(last);
  });

  test("is none of a step that only observes", () => {
    expect(refusingStep([step("policy", { shadow: true })], denial)).toBe(undefined);
  });

  test("is absent where no plugin refused", () => {
    const { plugin: _, ...byDefault } = denial;
    expect(refusingStep([step("policy")], byDefault)).toBe(undefined);
  });
});
