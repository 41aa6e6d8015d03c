import { expect, test } from "vitest";
import { formatKeyPath, formatProblem, nearestKey } from "../../../src/yaml/problem.ts";

test("a problem is one line with place, key and suggestion", () => {
  const line = formatProblem({
    file: "config.yaml",
    line: 12,
    column: 7,
    keyPath: "listener.forwrd_proxy_addr",
    message: "unknown key",
    suggestion: "forward_proxy_addr",
  });
  expect(line).toBe(
    "config.yaml:12:7 listener.forwrd_proxy_addr: unknown key (did you mean forward_proxy_addr?)",
  );
});

test("a problem of the whole file names no key", () => {
  const problem = { file: "f.yaml", line: 1, column: 1, keyPath: "", message: "is empty" };
  expect(formatProblem(problem)).toBe("f.yaml:1:1 is empty");
});

test("a path shows list positions and quotes what could disturb a terminal", () => {
  expect(formatKeyPath(["pipeline", "plugins", 0, "on_error"])).toBe(
    "pipeline.plugins[0].on_error",
  );
  expect(formatKeyPath(["a\u001b[31m"])).toBe('"a\\u001b[31m"');
  expect(formatKeyPath(["x".repeat(100)])).toHaveLength(65);
});

const known = ["forward_proxy_addr", "roles", "mode", "on_error", "ttl"];

test.each([
  ["forwrd_proxy_addr", "forward_proxy_addr"],
  ["forwardProxyAddr", "forward_proxy_addr"],
  ["forward-proxy-addr", "forward_proxy_addr"],
  ["role", "roles"],
  ["ROLES", "roles"],
  ["mdoe", "mode"],
  ["on_eror", "on_error"],
  ["something_else", undefined],
  ["x", undefined],
  ["y".repeat(5000), undefined],
])("%s is taken for %s", (key, meant) => {
  expect(nearestKey(key, known)).toBe(meant);
});
