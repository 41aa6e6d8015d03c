import { expect, test } from "vitest";
import { expand } from "../../../src/config/expand.ts";

const environment = {
  HOME: "/root",
  EMPTY: "",
  A_1: "x",
  "1": "one",
  "with space": "odd",
  NL: "a\nb",
};

test.each([
  ["$HOME", "/root"],
  ["${HOME}", "/root"],
  ["${HOME}x$HOME/y", "/rootx/root/y"],
  ["$A_1-", "x-"],
  ["[$EMPTY]", "[]"],
  ["$undefined_name", "${undefined_name}"],
  ["${undefined_name}", "${undefined_name}"],
  ["$1x", "onex"],
  ["$$", "${$}"],
  ["$*", "${*}"],
  ["${with space}", "odd"],
  ["ends with $", "ends with $"],
  ["$ 5", "$ 5"],
  ['foo$"', 'foo$"'],
  ["a${}b", "ab"],
  ["a${b", "ab"],
  ["$/x", "$/x"],
  ["$toString", "${toString}"],
  ["no dollar", "no dollar"],
  ["", ""],
])("expands %j to %j as Go's os.Expand does", (source, expected) => {
  expect(expand(source, environment).text).toBe(expected);
});

test("an offset behind a value with newlines leads back to the source", () => {
  const source = "a: $NL\nkey: ${HOME}\nend";
  const expansion = expand(source, environment);
  for (const word of ["key", "end"]) {
    expect(expansion.sourceOffset(expansion.text.indexOf(word))).toBe(source.indexOf(word));
  }
});

test("an offset inside a value leads to its reference", () => {
  const expansion = expand("ab $HOME", environment);
  expect(expansion.sourceOffset(expansion.text.indexOf("oot"))).toBe(3);
});

test("reports what it could not expand", () => {
  expect(expand("x $NOPE ${}", environment).unexpanded).toEqual([
    { name: "NOPE", start: 2 },
    { name: undefined, start: 10 },
  ]);
});
