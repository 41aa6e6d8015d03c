import { describe, expect, test } from "vitest";
import { classifyRpc, errorResponse } from "../../../src/http/json-rpc.ts";

describe("classifyRpc", () => {
  const head = { jsonrpc: "2.0" };
  test.each([
    [
      { ...head, id: 1, method: "m" },
      { kind: "request", id: 1, method: "m" },
    ],
    [
      { ...head, id: "1", method: "m", params: [] },
      { kind: "request", id: "1", params: [] },
    ],
    [
      { ...head, id: null, method: "m" },
      { kind: "request", id: null },
    ],
    [
      { ...head, method: "m", params: {} },
      { kind: "notification", method: "m" },
    ],
    [
      { ...head, id: 1, result: null },
      { kind: "response", id: 1, result: null },
    ],
    [
      { ...head, id: null, error: { code: 1 } },
      { kind: "response", error: { code: 1 } },
    ],
    [[], { kind: "invalid" }],
    [1, { kind: "invalid", id: null }],
    [
      { id: 3, method: "m" },
      { kind: "invalid", id: 3 },
    ],
    [{ jsonrpc: 2, id: 3, method: "m" }, { kind: "invalid" }],
    [
      { ...head, id: {}, method: "m" },
      { kind: "invalid", id: null },
    ],
    [{ ...head, id: 2 ** 60, method: "m" }, { kind: "invalid" }],
    [{ ...head, id: 1, method: 2 }, { kind: "invalid" }],
    [{ ...head, id: 1, method: "m", params: "p" }, { kind: "invalid" }],
    [{ ...head, id: 1, method: "m", params: null }, { kind: "invalid" }],
    [{ ...head, id: 1, method: "m", result: 1 }, { kind: "invalid" }],
    [{ ...head, id: 1, result: 1, error: 1 }, { kind: "invalid" }],
    [{ ...head, id: 1 }, { kind: "invalid" }],
    [{ ...head, result: 1 }, { kind: "invalid" }],
    [
      { ...head, id: 1, method: "tools/list", Method: "tools/call" },
      { kind: "invalid", id: 1 },
    ],
  ])("%j", (value, expected) => {
    expect(classifyRpc(value)).toMatchObject(expected);
  });

  test("judges the entries of a batch one by one", () => {
    const body = classifyRpc([{ ...head, id: 1, method: "m" }, 2, [{ ...head }]]);
    expect(body.kind === "batch" && body.messages.map((message) => message.kind)).toEqual([
      "request",
      "invalid",
      "invalid",
    ]);
  });
});

test("errorResponse keeps the type of the id and leaves absent data out", () => {
  expect(JSON.stringify(errorResponse("1", -32000, "no"))).toBe(
    '{"jsonrpc":"2.0","id":"1","error":{"code":-32000,"message":"no"}}',
  );
});
