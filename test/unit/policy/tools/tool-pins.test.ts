import { expect, test } from "vitest";
import { ToolPins } from "../../../../src/policy/tools/tool-pins.ts";

test("a tool that is called like what every object has is told like any other", () => {
  const pins = new ToolPins();
  pins.observe("s", "constructor", {});
  // Of what was told before it was listed it is no part.
  pins.told("s", {});
  expect(pins.hasNews("s")).toBe(true);
  pins.told("s", pins.pinsOf("s"));
  expect(pins.hasNews("s")).toBe(false);
});
