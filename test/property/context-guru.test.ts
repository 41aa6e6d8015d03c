/** What holds for every request that context-guru shortens: its shape, its size, and the same bytes at every turn. */
import * as fc from "fast-check";
import { describe, expect, test } from "vitest";
import { spliceJson } from "../../src/http/json-splice.ts";
import { contextGuru } from "../../src/plugins/context-guru/plugin.ts";
import { inferenceParser } from "../../src/plugins/parsers/inference.ts";
import { message, PluginBench } from "../support/plugin-bench.ts";
import { outputs, requestsWith } from "../support/tool-outputs.ts";

const limits = { interruptAfterTimeLimit: 2_500, numRuns: 2_000 };

/** One proxy's plugin, asked about a body. */
function guru(config: object = {}): (path: string, body: string) => Promise<string> {
  const bench = new PluginBench();
  const parser = inferenceParser.create({ endpoints: [] }, bench.deps);
  const plugin = bench.create(contextGuru, { without_session: "caller", ...config });
  return async (path, body) => {
    const context = message({ path, body });
    await parser.onRequest?.(context);
    await plugin.onRequest?.(context);
    return context.body?.toString("utf8") ?? "";
  };
}

/** The value with every text and number replaced by its type, and lists by their first item. */
function shapeOf(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(shapeOf);
  if (typeof value !== "object" || value === null) return typeof value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, shapeOf(item)]));
}

const line = fc.oneof(
  fc.string({ maxLength: 60 }),
  fc.constantFrom(
    "at f (/a/b.js:1:2)",
    "    at g (/a/b.js:1:2)",
    '  File "x.py", line 3',
    "@@ -1,3 +1,3 @@",
    "+++ b/x.ts",
    "--- a/x.ts",
    "+added",
    "-removed",
    " context",
    "<script>",
    "</div>",
    "ERROR failed",
    "\u001b[31mred\u001b[0m",
    "10%\r20%",
    "\ud83d",
    "2026-01-01 INFO request 1 done in 5ms",
  ),
);
const text = fc.oneof(
  fc.array(line, { maxLength: 200 }).map((lines) => lines.join("\n")),
  fc.array(line, { maxLength: 60 }).map((lines) => `<html><body>${lines.join("\n")}`),
  fc
    .array(line, { maxLength: 60 })
    .map((lines) => `diff --git a b\n+++ b/x\n@@ -1 +1 @@\n${lines.join("\n")}`),
  fc.json({ maxDepth: 5 }),
  fc
    .array(fc.jsonValue({ maxDepth: 3 }), { maxLength: 100 })
    .map((items) => JSON.stringify(items, null, 2)),
);
const small = { min_chars: 256, keep_chars: 256 };

describe("every text in every API", () => {
  test("valid JSON of the same shape, never longer, the same at every turn and in another process", async () => {
    await fc.assert(
      fc.asyncProperty(text, fc.nat(8), async (output, at) => {
        const { path, body } = Object.values(requestsWith(output))[at] ?? { path: "", body: {} };
        const sent = JSON.stringify(body);
        const ask = guru(small);
        const once = await ask(path, sent);
        expect(once.length).toBeLessThanOrEqual(sent.length);
        const structured = path.includes("Content");
        const read: unknown = JSON.parse(once);
        if (!structured && at !== 7) expect(shapeOf(read)).toEqual(shapeOf(body));
        // At the next turn, in a process that knows nothing of it, and where it comes shortened already.
        expect(await ask(path, sent)).toBe(once);
        expect(await guru(small)(path, sent)).toBe(once);
        expect(await ask(path, once)).toBe(once);
      }),
      limits,
    );
  });

  test("what users and models said is sent as it came, byte for byte", async () => {
    const words = fc.string({ minLength: 300, maxLength: 3_000 });
    await fc.assert(
      fc.asyncProperty(words, async (said) => {
        const body = JSON.stringify({
          model: "m",
          messages: [
            { role: "system", content: said },
            { role: "user", content: [{ type: "text", text: said }] },
            { role: "assistant", content: said },
            { role: "user", content: said },
          ],
        });
        expect(await guru(small)("/v1/chat/completions", body)).toBe(body);
      }),
      limits,
    );
  });
});

test.each(Object.entries(outputs))("%s: shortened to less than a third", async (_name, output) => {
  for (const { path, body } of Object.values(requestsWith(output))) {
    const sent = JSON.stringify(body);
    const got = await guru()(path, sent);
    expect(got.length).toBeLessThan(sent.length / 3);
    expect(() => JSON.parse(got) as unknown).not.toThrow();
  }
});

test("time is linear: work for ten times the text is not a hundred times the work", async () => {
  // Every construct that a quadratic reader would look for again and again; a test that hangs has failed.
  const hostile = [
    "<script",
    "<!--",
    "<a href='",
    "\u001b]",
    "\u001b[",
    "@@ -",
    "    at ",
    "&amp",
    "[",
    '{"a":',
    "\r",
    " ",
    "\n",
    "error ",
    "<pre> ",
  ];
  for (const part of hostile) {
    const head = part === "<pre> " ? "<html><pre>" : part.startsWith("<") ? "<html>" : "";
    const repeated = part.slice(part === "<pre> " ? -1 : 0);
    const output = head + repeated.repeat(Math.floor(2_000_000 / repeated.length));
    const body = JSON.stringify({ model: "m", messages: [{ role: "tool", content: output }] });
    const got = await guru()("/v1/chat/completions", body);
    expect(got.length).toBeLessThanOrEqual(body.length);
  }
}, 60_000);

test("a splice replaces what it is told and leaves every other byte", () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 4 }), fc.nat(3), fc.nat(100), (value, indent, pick) => {
      const json = JSON.stringify(value, null, indent);
      const paths: (string | number)[][] = [];
      const walk = (item: unknown, path: (string | number)[]): void => {
        paths.push(path);
        if (Array.isArray(item)) for (const [at, one] of item.entries()) walk(one, [...path, at]);
        else if (typeof item === "object" && item !== null)
          for (const [name, one] of Object.entries(item)) walk(one, [...path, name]);
      };
      walk(value, []);
      const path = paths[pick % paths.length] ?? [];
      const got = spliceJson(json, [{ path, json: '"\u0000 here"'.replace("\u0000", "it is") }]);
      const parent = path.slice(0, -1);
      const last = path.at(-1);
      if (last === undefined) return JSON.parse(got) === "it is here";
      let inside = JSON.parse(got) as Record<string | number, unknown>;
      for (const step of parent) inside = inside[step] as Record<string | number, unknown>;
      expect(inside[last]).toBe("it is here");
      expect(spliceJson(json, [])).toBe(json);
      return true;
    }),
    limits,
  );
});
