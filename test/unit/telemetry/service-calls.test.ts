import { expect, test } from "vitest";
import { ServiceCalls } from "../../../src/telemetry/service-calls.ts";

test("a service is told by its last call and by the mean of those that were answered", () => {
  const calls = new ServiceCalls();
  calls.answered("https://idp.example", 10);
  calls.answered("https://idp.example", 20);
  expect(calls.view()).toMatchObject([
    { origin: "https://idp.example", calls: 2, failures: 0, ok: true, lastMs: 20, meanMs: 12 },
  ]);
  calls.failed("https://idp.example", 5_000.04, "upstream.timeout");
  const [idp] = calls.view();
  expect(idp).toMatchObject({
    calls: 3,
    failures: 1,
    ok: false,
    lastMs: 5_000,
    meanMs: 12,
    lastFailure: "upstream.timeout",
  });
  expect(new Date(idp?.lastAt ?? "").toISOString()).toBe(idp?.lastAt);
  calls.answered("https://idp.example", 12);
  // Why it failed before stays, for whoever asks what was wrong.
  expect(calls.view()[0]).toMatchObject({ ok: true, lastFailure: "upstream.timeout" });
});

test("a service that never answered has no mean", () => {
  const calls = new ServiceCalls();
  calls.failed("unix:///run/opa.sock", 1, "upstream.refused");
  expect(calls.view()[0]).not.toHaveProperty("meanMs");
});

test("the number of services has a bound", () => {
  const calls = new ServiceCalls();
  for (let at = 0; at < 200; at += 1) calls.answered(`https://s${at}.example`, 1);
  expect(calls.view()).toHaveLength(64);
  expect(calls.view().at(-1)?.origin).toBe("https://s199.example");
});
