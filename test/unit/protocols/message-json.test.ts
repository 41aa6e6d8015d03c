import { expect, test } from "vitest";
import type { DecodedBody } from "../../../src/http/body.ts";
import { jsonOf, requestJson } from "../../../src/protocols/message-json.ts";
import { message } from "../../support/plugin-bench.ts";

test("reads the same bytes once", () => {
  const bytes = Buffer.from('{"a":1}');
  expect(jsonOf(bytes)).toBe(jsonOf(bytes));
  expect(jsonOf(bytes)).toEqual({ kind: "json", value: { a: 1 } });
});

test.each<[DecodedBody, object]>([
  [
    { kind: "body", bytes: Buffer.from("[1]") },
    { kind: "json", value: [1] },
  ],
  [{ kind: "body", bytes: Buffer.alloc(0) }, { kind: "absent" }],
  [{ kind: "unsupported" }, { kind: "invalid", reason: /cannot be undone/ }],
  [{ kind: "too-large" }, { kind: "invalid", reason: /limits\.max_body/ }],
  [{ kind: "corrupt" }, { kind: "invalid", reason: /corrupt/ }],
])("%o", (clear, expected) => {
  const context = message();
  context.content.load(Buffer.from("as it came"), clear);
  const reading = requestJson(context);
  expect(reading.kind).toBe((expected as { kind: string }).kind);
  const { reason } = expected as { reason?: RegExp };
  if (reason !== undefined) expect(reading.kind === "invalid" && reading.reason).toMatch(reason);
  else expect(reading).toEqual(expected);
});

test("a body that nobody read is absent", () => {
  expect(requestJson(message())).toEqual({ kind: "absent" });
});
