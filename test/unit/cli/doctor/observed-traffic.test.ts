import { expect, test } from "vitest";
import { ObservedTraffic } from "../../../../src/cli/doctor/observed-traffic.ts";

const connect = {
  msg: "flow",
  direction: "outbound",
  transport: "connect",
  method: "CONNECT",
  host: "api.test:443",
  outcome: "ok",
  status: 200,
};

function told(...lines: Readonly<Record<string, unknown>>[]) {
  const traffic = new ObservedTraffic();
  for (const line of lines) traffic.hear(line);
  return traffic.findings();
}

test("a client that rejected the leaf is a failure with both ways out", () => {
  const [finding] = told({ ...connect, outcome: "error", code: "tls.client-rejected" });
  expect(finding?.verdict).toBe("fail");
  expect(finding?.text).toContain("api.test:443");
  expect(finding?.remedy).toMatch(/ca\.crt.*passthrough_hosts/);
});

test("an opened tunnel passes, and one that nobody looked into says so", () => {
  const [opened, spliced] = told({ ...connect, bridged: "h2" }, { ...connect, closed: "done" });
  expect(opened).toMatchObject({ verdict: "pass" });
  expect(opened?.text).toContain("certificate was trusted");
  expect(spliced?.text).toContain("without looking inside");
});

test("a refusal names the plugin that can be changed", () => {
  const [finding] = told({
    ...connect,
    outcome: "denied",
    code: "policy.forbidden",
    reason: "not on the list",
    plugin: "egress-policy",
  });
  expect(finding).toMatchObject({ verdict: "fail" });
  expect(finding?.text).toContain("not on the list");
  expect(finding?.remedy).toContain("egress-policy");
});

test("repetitions are counted and the number of kinds is bounded", () => {
  const many = Array.from({ length: 300 }, (_, index) => ({ ...connect, host: `h${index}:443` }));
  const findings = told(connect, connect, ...many);
  expect(findings[0]?.text).toContain("(2 times)");
  expect(findings).toHaveLength(201);
  expect(findings.at(-1)?.text).toBe("101 more flows");
});

test("silence is a failure: the command went around the proxy, or nowhere", () => {
  const [finding] = told({ msg: "serving" }, { ...connect, direction: "inbound" });
  expect(finding).toMatchObject({ verdict: "fail" });
});
