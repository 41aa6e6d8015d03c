import { expect, test } from "vitest";
import { TrafficSummary } from "../../../src/cli/traffic-summary.ts";

const flow = {
  msg: "flow",
  direction: "outbound",
  transport: "bridge",
  method: "GET",
  host: "api.test:443",
  outcome: "ok",
  status: 200,
};
const denied = { outcome: "denied", code: "policy.forbidden", reason: "not on the list" };

function told(...lines: Readonly<Record<string, unknown>>[]): string[] {
  const traffic = new TrafficSummary();
  for (const line of lines) traffic.hear(line);
  return traffic.toString().trimEnd().split("\n");
}

test("refusals come first, with host, plugin, code and reason", () => {
  const refused = { ...flow, ...denied, host: "evil.test:443", plugin: "egress-policy" };
  expect(told(flow, refused)).toEqual([
    "  refused  evil.test:443  GET  egress-policy, policy.forbidden: not on the list",
    "  reached  api.test:443   GET",
    "  1 refused, 1 reached",
  ]);
});

test("the same again is counted, method by method", () => {
  const [line, counts] = told(flow, flow, { ...flow, method: "POST" });
  expect(line).toBe("  reached  api.test:443  GET 2 times, POST");
  expect(counts).toBe("  0 refused, 3 reached");
});

test("a tunnel is told when nobody looked into it, else by its requests", () => {
  const connect = { ...flow, transport: "connect", method: "CONNECT" };
  expect(told({ ...connect, bridged: "h2" }, flow)).toHaveLength(2);
  expect(told(connect)[0]).toBe("  reached  api.test:443  CONNECT  tunnelled, not looked into");
});

test("failures, distrust, abandoned requests and unreadable ones are told apart", () => {
  const lines = told(
    { ...flow, outcome: "error", code: "upstream.refused", reason: "nobody listens" },
    { ...flow, outcome: "error", code: "tls.client-rejected", reason: "unknown ca" },
    { ...flow, outcome: "cancelled" },
    { msg: "refused", surface: "forward", method: "CONNECT", ...denied },
  );
  expect(lines[0]).toMatch(/refused {2}\(no destination\) {2}CONNECT/);
  expect(lines[1]).toContain("failed  api.test:443      GET  upstream.refused: nobody listens");
  expect(lines[2]).toContain("did not trust the proxy's certificate");
  expect(lines[3]).toContain("left before the end");
  expect(lines[4]).toBe("  1 refused, 2 failed, 1 left, 0 reached");
});

test("hosts and methods are bounded, and words draw no lines of their own", () => {
  const hosts = Array.from({ length: 300 }, (_, index) => ({ ...flow, host: `h${index}` }));
  const lines = told(...hosts);
  expect(lines).toHaveLength(202);
  expect(lines.at(-2)).toBe("  100 more, not shown");
  const methods = Array.from({ length: 50 }, (_, index) => ({ ...flow, method: `M${index}` }));
  expect(told(...methods)[0]).toContain("others 38 times");
  expect(told({ ...flow, host: "a\n\u001b[2Jb" })).toHaveLength(2);
});

test("silence and other lines are told as silence", () => {
  const [only] = told({ msg: "serving" }, { ...flow, direction: "inbound" });
  expect(only).toContain("nothing: it made no request");
});
