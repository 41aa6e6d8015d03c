import { describe, expect, test } from "vitest";
import { classifyRpc, errorResponse, parseStrictJson } from "../../../src/http/json-rpc.ts";

describe("parseStrictJson", () => {
  test.each([
    '{"a":[1,{"b":"}"},"x,\\"y"],"c":null}',
    '[{"a":1},{"a":2}]',
    '{"a":{"a":1},"b":["a","a"]}',
    ' "text" ',
    "1e3",
  ])("reads %s as JSON.parse does", (text) => {
    expect(parseStrictJson(text)).toEqual({ kind: "json", value: JSON.parse(text) });
    expect(parseStrictJson(Buffer.from(text))).toEqual(parseStrictJson(text));
  });

  test.each([
    ['{"name":1,"name":2}', /twice/],
    ['{"name":1,"\\u006eame":2}', /twice/],
    ['{"a":{"b":1,"c":[],"b":2}}', /twice/],
    ['{"__proto__":1,"__proto__":2}', /twice/],
    ["\uFEFF{}", /valid/],
    ["NaN", /valid/],
    ["{} {}", /valid/],
    ["{}//", /valid/],
    ["", /valid/],
    ["{'a':1}", /valid/],
    ["[".repeat(65) + "]".repeat(65), /deeper/],
  ])("refuses %s", (text, reason) => {
    expect(parseStrictJson(text)).toMatchObject({ reason: expect.stringMatching(reason) });
    expect(parseStrictJson(Buffer.from(text)).kind).toBe("invalid");
  });

  test("refuses bytes that are not UTF-8", () => {
    expect(parseStrictJson(Buffer.from('{"a":"x"}', "utf16le")).kind).toBe("invalid");
    expect(parseStrictJson(Uint8Array.of(0x22, 0xff, 0x22)).kind).toBe("invalid");
  });

  test("__proto__ stays data", () => {
    const parsed = parseStrictJson('{"__proto__":{"x":1}}');
    const value = parsed.kind === "json" ? parsed.value : undefined;
    expect(Object.keys(value ?? {})).toEqual(["__proto__"]);
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
  });
});

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
