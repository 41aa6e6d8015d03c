import { expect, test } from "vitest";
import { shownText, visible } from "../../../src/approval/visible.ts";

test.each([
  ["a control", "a\u001b[2J\u0007\u009b31m", "a\\u{1b}[2J\\u{7}\\u{9b}31m"],
  ["an end of a line", "a\r\nb\u2028c\u0085", "a\\u{d}\\u{a}b\\u{2028}c\\u{85}"],
  ["a mark of direction", "\u202egpj\u2069", "\\u{202e}gpj\\u{2069}"],
  [
    "what has no width",
    "pay\u200bpal\ufeff\u00ad\u034f",
    "pay\\u{200b}pal\\u{feff}\\u{ad}\\u{34f}",
  ],
  [
    "a tag, a filler, a selector",
    "\u{e0041}\u3164\ufe0f\u2800",
    "\\u{e0041}\\u{3164}\\u{fe0f}\\u{2800}",
  ],
  ["a space of another kind", "a\u00a0b\u3000", "a\\u{a0}b\\u{3000}"],
  ["half a character", "\ud800x", "\\u{d800}x"],
  ["words", "grüße, 世界 \u{1f600} <b>&amp;", "grüße, 世界 \u{1f600} <b>&amp;"],
])("%s is seen", (_name, text, seen) => {
  expect(visible(text)).toBe(seen);
  expect(visible(seen)).toBe(seen);
});

test("a long text is shown with its end, and says what is left out", () => {
  const shown = shownText(`${"a".repeat(5_000)}&to=mallory`, 400);
  expect(shown).toContain("4611 characters left out");
  expect(shown).toMatch(/^a{300} … .*to=mallory$/);
});
