import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { hasOddNumber, parseStrictJson } from "../../../src/http/strict-json.ts";

describe("parseStrictJson", () => {
  test.each([
    '{"a":[1,{"b":"}"},"x,\\"y"],"c":null}',
    '[{"a":1},{"a":2}]',
    '{"a":{"a":1},"b":["a","a"]}',
    ' "text" ',
    JSON.stringify(",[{".repeat(300_000)),
    "1e3",
  ])("reads %.40s as JSON.parse does", (text) => {
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
    ['{"a":{"b":1},"b":[{"c":1,"c":1}]}', /twice/],
    ['{"a\\"":1,"a\\"":2}', /twice/],
    ['{"a":1}x', /valid/],
    ["Infinity", /valid/],
    ["[1,]", /valid/],
    ['{"a":1,}', /valid/],
    ['"\t"', /valid/],
    ['{"a', /valid/],
    ['"a\\\\\\"', /valid/],
    [`[${"[],".repeat(130_000)}1]`, /of more than 250000 values/],
    [`[${"1,".repeat(250_000)}1]`, /of more than 250000 values/],
    ["[".repeat(65) + "]".repeat(65), /deeper/],
  ])("refuses %.40s", (text, reason) => {
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

test("numbers that would be written otherwise are known, and no others", () => {
  for (const odd of [
    "1.0",
    "-0",
    "1e2",
    "1E400",
    "0.10",
    "0.0000001",
    "9007199254740993",
    "1234567890.12345678",
  ])
    expect(hasOddNumber(`{"1.0":[true,${odd}]}`), odd).toBe(true);
  fc.assert(fc.property(fc.jsonValue(), (value) => !hasOddNumber(JSON.stringify(value))));
});

test("says what is wrong, and never what it read", () => {
  const reasons = [
    Uint8Array.of(0x22, 0xff, 0x22),
    "\uFEFF{}",
    '{"secret":}',
    "[[[]]]",
    '{"secret":1,"secret":2}',
    '{"a":"0123456789"}',
  ].map((input) => parseStrictJson(input, { maxDepth: 2, maxBytes: 23 }));
  expect(reasons.map((read) => (read.kind === "invalid" ? read.reason : read.value))).toEqual([
    "not UTF-8",
    "not valid JSON: it has a byte order mark",
    "not valid JSON",
    "nested deeper than 2 levels",
    "not safe to read: an object has the same key twice",
    { a: "0123456789" },
  ]);
  expect(parseStrictJson("[1,2,3]", { maxBytes: 6 })).toEqual({
    kind: "invalid",
    reason: "longer than 6 bytes",
  });
});

test.each([
  ["9007199254740993", "invalid"],
  ['{"a":[-99999999999999999999]}', "invalid"],
  ["9007199254740991", "json"],
  ["0.12345678901234567890", "json"],
  ["1234567890123456e2", "json"],
  ['{"a":"9007199254740993"}', "json"],
])("whole numbers that a reader would round: %s is %s", (text, kind) => {
  expect(parseStrictJson(text, { exactIntegers: true }).kind).toBe(kind);
  expect(parseStrictJson(text).kind).toBe("json");
});

/** The member names of the text's objects, read by another parser than the one under test. */
function hasTwin(text: string): boolean {
  const open: (Set<string> | undefined)[] = [];
  const tokens = /"(?:[^"\\]|\\.)*"(\s*:)?|[{}[\]]/g;
  for (const [token, colon] of text.matchAll(tokens)) {
    if (token === "{") open.push(new Set());
    else if (token === "[") open.push(undefined);
    else if (token === "}" || token === "]") open.pop();
    else if (colon !== undefined) {
      const key = String(JSON.parse(token.replace(/\s*:$/, "")));
      if (open.at(-1)?.has(key) === true) return true;
      open.at(-1)?.add(key);
    }
  }
  return false;
}

test("property: refuses an object with the same key twice, and only that, of valid JSON", () => {
  const key = fc.constantFrom("a", "b", "\\u0061", 'a\\"', "__proto__", "");
  const { value } = fc.letrec<{ value: string; object: string; array: string }>((tie) => ({
    value: fc.oneof(
      { maxDepth: 4 },
      fc.json({ maxDepth: 1 }),
      fc.constantFrom('"{\\"a\\":1,\\"a\\":1}"', "-1.5e3", '"\\\\"', "null"),
      tie("object"),
      tie("array"),
    ),
    object: fc
      .array(fc.tuple(key, tie("value")), { maxLength: 4 })
      .map((members) => `{${members.map(([name, item]) => `"${name}" : ${item}`).join(" ,")}}`),
    array: fc.array(tie("value"), { maxLength: 3 }).map((items) => `[${items.join(",")}]`),
  }));
  fc.assert(
    fc.property(value, (text) => {
      const read = parseStrictJson(text);
      if (hasTwin(text)) expect(read).toMatchObject({ reason: expect.stringMatching(/twice/) });
      else expect(read.kind === "json" && read.value).toEqual(JSON.parse(text));
    }),
    { numRuns: 2_000, interruptAfterTimeLimit: 5_000 },
  );
});
