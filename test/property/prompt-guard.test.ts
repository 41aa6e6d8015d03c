/** prompt-guard, whatever the text: its work is linear, its verdicts do not depend on how bytes arrive, it writes valid texts. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { frameReaderFor, shownOf } from "../../src/http/frames.ts";
import { withoutInvisible } from "../../src/plugins/prompt-guard/invisible.ts";
import { scanText, type TextKind } from "../../src/plugins/prompt-guard/scan.ts";
import { Spotlight } from "../../src/plugins/prompt-guard/spotlight.ts";
import { stripHidden } from "../../src/plugins/prompt-guard/strip.ts";
import { benignTexts } from "../support/benign-texts.ts";
import { GuardBench, replacedBy } from "../support/guard-bench.ts";
import { promptAttacks } from "../support/prompt-attacks.ts";

const kinds: readonly TextKind[] = ["html", "text"];
/** What detectors begin at, and how it goes on. */
const beginnings = [
  "<",
  "<a ",
  "<div style='display:none'>",
  "<!--",
  "<!-",
  "<!",
  "</x>",
  "</",
  "&#1",
  "&",
  "![](a",
  "![x](https://e/?q=a",
  "](",
  "[",
  "QUJD",
  "0x41 ",
  "%41",
  "01000001 ",
  "\\u0041",
  "ignore ",
  "ignore all previous ",
  "send the password ",
  "i ",
  "i-",
  "a\u200B",
  "\u202E",
  "\u{E0041}",
  "\uFE00",
  "\u0430b",
  "```",
  '"',
  "\n",
  " ",
  "> ",
  "- ",
  "#",
  "---",
  "<style>.a{",
  "<|",
  "忽略",
  "1gn0re ",
  "system: ",
  "curl ",
  "<p a='",
  "{{",
  "\uD800",
];

describe("the work on a text grows with its length alone", () => {
  test.each(beginnings)("%j", async (beginning) => {
    for (const kind of kinds) {
      const stepsOf = async (chars: number): Promise<number> =>
        (await scanText(beginning.repeat(Math.ceil(chars / beginning.length)), { kind })).steps /
        chars;
      const [short, long] = [await stepsOf(8_000), await stepsOf(64_000)];
      expect(long).toBeLessThan(120);
      expect(long).toBeLessThan(short * 1.5 + 8);
    }
  });

  test("whatever is put together", async () => {
    const part = fc.oneof(
      fc.constantFrom(...beginnings),
      fc.string({ unit: "binary", maxLength: 20 }),
    );
    const texts = fc.array(fc.tuple(part, fc.integer({ min: 1, max: 60 })), { maxLength: 40 });
    await fc.assert(
      fc.asyncProperty(texts, fc.constantFrom(...kinds), async (parts, kind) => {
        const text = parts.map(([one, times]) => one.repeat(times)).join("");
        const { steps, score } = await scanText(text, { kind });
        expect(steps).toBeLessThan(120 * text.length + 4_000);
        expect(score).toBeGreaterThanOrEqual(0);
        expect(score).toBeLessThanOrEqual(100);
      }),
      { numRuns: 150 },
    );
  });
});

test("a stream is judged alike however it is cut", async () => {
  const attack = JSON.stringify({ text: promptAttacks[0]?.body });
  const marks = new GuardBench({ rules: [{ name: "all", action: "mark" }] });
  const stream = Buffer.from(
    `: hi\n\ndata: {"text":"fine"}\n\nevent: x\ndata: ${attack}\n\ndata: {"text":"late"}\n\n`,
  );
  const judge = async (cuts: readonly number[]): Promise<readonly (string | undefined)[]> => {
    const context = marks.respond("text/event-stream");
    const reader = frameReaderFor("text/event-stream", 1_000_000);
    const ends = [...new Set(cuts.map((cut) => cut % stream.length))].sort((a, b) => a - b);
    const chunks = [0, ...ends].map((start, at) =>
      stream.subarray(start, ends[at] ?? stream.length),
    );
    const frames = [
      ...chunks.flatMap((chunk) => [...(reader?.push(chunk) ?? [])]),
      ...(reader?.end() ?? []),
    ];
    const said: (string | undefined)[] = [];
    for (const frame of frames) {
      const shown = shownOf(frame);
      if (shown !== undefined) said.push(replacedBy(await marks.plugin.onFrame?.(context, shown)));
    }
    return said;
  };
  const whole = await judge([]);
  expect(whole.map((one) => one !== undefined)).toEqual([false, true, false]);
  await fc.assert(
    fc.asyncProperty(fc.array(fc.nat(), { maxLength: 20 }), async (cuts) => {
      expect(await judge(cuts)).toEqual(whole);
    }),
    { numRuns: 60 },
  );
});

test("an attack in a long text is found wherever it stands", async () => {
  const filler = benignTexts.find(({ name }) => name === "cooking: long")?.body ?? "";
  await fc.assert(
    fc.asyncProperty(fc.nat({ max: 140_000 }), async (place) => {
      const long = filler.repeat(Math.ceil(150_000 / filler.length));
      const text = `${long.slice(0, place)}\n\n${promptAttacks[0]?.body}\n\n${long.slice(place)}`;
      expect((await scanText(text, { kind: "text" })).score).toBeGreaterThanOrEqual(50);
    }),
    { numRuns: 12 },
  );
});

describe("what is written", () => {
  const text = fc.oneof(
    fc.string({ unit: "grapheme", maxLength: 200 }),
    fc.constantFrom(...promptAttacks.map(({ body }) => body)),
  );

  test("a mark is known again, is the same for the same text, and cannot be made by the text", () => {
    const spotlight = new Spotlight(Buffer.alloc(32, 7));
    const other = new Spotlight(Buffer.alloc(32, 8));
    fc.assert(
      fc.property(
        text,
        fc.constantFrom("delimit" as const, "datamark" as const),
        (body, marking) => {
          const terms = { kind: "text" as const, marking, removeInvisible: false };
          const marked = spotlight.mark(body, terms);
          expect(spotlight.isMarked(marked)).toBe(true);
          expect(spotlight.mark(body, terms)).toBe(marked);
          expect(spotlight.mark(marked, terms)).toBe(marked);
          expect(spotlight.isMarked(other.mark(body, terms))).toBe(false);
          if (marking === "delimit") expect(marked).toContain(body);
        },
      ),
    );
  });

  test("taking out what is hidden, or what nobody sees, once is enough", () => {
    fc.assert(
      fc.property(text, (body) => {
        const seen = withoutInvisible(body);
        expect(withoutInvisible(seen).length).toBeLessThanOrEqual(seen.length);
        expect(stripHidden(body).length).toBeLessThanOrEqual(body.length);
      }),
    );
  });

  test("JSON stays JSON of the same shape", async () => {
    const marks = new GuardBench({ rules: [{ name: "all", action: "mark", threshold: 0 }] });
    const shapeOf = (value: unknown): unknown => {
      if (typeof value === "string") return "text";
      if (Array.isArray(value)) return value.map(shapeOf);
      if (typeof value !== "object" || value === null) return value;
      return Object.fromEntries(
        Object.entries(value).map(([name, member]) => [name, shapeOf(member)]),
      );
    };
    await fc.assert(
      fc.asyncProperty(fc.json(), async (json) => {
        const written = await marks.passed("application/json", json);
        if (written !== undefined)
          expect(shapeOf(JSON.parse(written))).toEqual(shapeOf(JSON.parse(json)));
      }),
    );
  });
});
