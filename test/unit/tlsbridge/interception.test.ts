import { describe, expect, test } from "vitest";
import type { InterceptionOptions } from "../../../src/tlsbridge/interception.ts";
import { Interception } from "../../../src/tlsbridge/interception.ts";

let nowMs = 1_000_000;
const create = (options: Partial<InterceptionOptions> = {}): Interception =>
  new Interception({
    passthroughHosts: { matches: (host) => host === "pinned.test" },
    now: () => nowMs,
    ...options,
  });
const at = (host: string, port = 443) => ({ host, port });

describe("decide", () => {
  test.each([
    ["api.test", 443, { action: "bridge" }],
    ["api.test", 8443, { action: "bridge" }],
    ["api.test", 9999, { action: "tunnel", reason: "port" }],
    ["pinned.test", 443, { action: "tunnel", reason: "passthrough" }],
    ["pinned.test", 22, { action: "tunnel", reason: "port", isExempt: true }],
  ])("%s:%d (I7)", (host, port, expected) => {
    expect(create().decide({ host, port })).toEqual(expected);
  });

  test("a list of ports replaces the default (I8)", () => {
    const interception = create({ ports: [9443] });
    expect(interception.decide(at("a.test", 9443)).action).toBe("bridge");
    expect(interception.decide(at("a.test", 443)).action).toBe("tunnel");
  });
});

describe("a client that refuses the leaf", () => {
  test("50 times is still intercepted by default (FRONT-18, B2)", () => {
    const interception = create();
    for (let time = 1; time <= 50; time += 1) {
      expect(interception.recordRefusal("a.test", "unknown_ca").count).toBe(time);
      expect(interception.decide(at("a.test"))).toEqual({ action: "bridge" });
    }
  });

  test("is tunnelled afterwards when the operator chose so (I12)", () => {
    const interception = create({ onFailure: "tunnel" });
    expect(interception.decide(at("a.test")).action).toBe("bridge");
    interception.recordRefusal("a.test", "unknown_ca");
    expect(interception.decide(at("a.test"))).toEqual({
      action: "tunnel",
      reason: "client-refused",
    });
    expect(interception.decide(at("b.test")).action).toBe("bridge");
  });

  test("is tried again after the time-out, and after a clock set back (I14)", () => {
    const interception = create({ onFailure: "tunnel", refusalTtlMs: 1_000 });
    interception.recordRefusal("a.test", "closed");
    nowMs += 1_000;
    expect(interception.decide(at("a.test")).action).toBe("bridge");
    interception.recordRefusal("a.test", "closed");
    nowMs -= 1;
    expect(interception.decide(at("a.test")).action).toBe("bridge");
  });

  test("is remembered within a bound, the oldest forgotten first (I14)", () => {
    const interception = create({ onFailure: "tunnel", maxRefusals: 2 });
    for (const host of ["a", "b", "a", "c"]) interception.recordRefusal(host, "closed");
    expect(interception.size).toBe(2);
    expect(interception.refusalOf("b")).toBeUndefined();
    expect(interception.refusalOf("a")).toMatchObject({ count: 2, how: "closed" });
  });

  test("is forgotten when it accepts", () => {
    const interception = create();
    interception.recordRefusal("a.test", "closed");
    interception.forget("a.test");
    expect(interception.refusalOf("a.test")).toBeUndefined();
  });
});
