import { describe, expect, test } from "vitest";
import { printableLine, printableJson } from "../../../src/cli/event-line.ts";

/** ESC [, its one-character form, and marks that turn or break what follows. */
const speaking = "a\u001b[2J\u009b31m\u007f\u2028\u202e\u2066\r\nb";
// eslint-disable-next-line no-control-regex -- they are what must not be there
const obeyed = /[\u0000-\u0009\u000b-\u001f\u007f-\u009f\u2028-\u202e\u2066-\u2069]/;

describe("words of other programs", () => {
  test("stay on their line and say nothing to the terminal", () => {
    expect(printableLine(speaking)).toBe("a [2J 31m b");
    expect(printableLine("Bücher, 本, 😀")).toBe("Bücher, 本, 😀");
  });

  test.each([undefined, 2])("are the same in JSON and as silent, with indent %s", (indent) => {
    const value = { [speaking]: [speaking, "本 😀"] };
    const text = printableJson(value, indent);
    expect(text).not.toMatch(obeyed);
    expect(text).toContain("本 😀");
    expect(JSON.parse(text)).toEqual(value);
    expect(text.split("\n")).toHaveLength(indent === undefined ? 1 : 6);
  });
});
