/** Texts that the library cannot read at all. */
import { expect, test } from "vitest";
import { YamlDocument } from "../../../src/yaml/document.ts";
test("a text of nothing but levels is a problem with a place", () => {
  const document = new YamlDocument(`a:\n  b: ${":r: ".repeat(20_000)}\n c`);
  expect(document.problems).toMatchObject([
    { line: 1, column: 1, message: "is nested too deeply" },
  ]);
  expect(document.locate(["a"])).toMatchObject({ line: 1 });
});
