/** The two tables: what tries to instruct a model is caught by the settings that nobody has changed, and nothing else is. */
import { describe, expect, test } from "vitest";
import { benignTexts } from "../support/benign-texts.ts";
import { GuardBench } from "../support/guard-bench.ts";
import { promptAttacks } from "../support/prompt-attacks.ts";

const guard = new GuardBench();

test("the tables are large, and no entry is there twice", () => {
  expect(promptAttacks.length).toBeGreaterThanOrEqual(60);
  expect(benignTexts.length).toBeGreaterThanOrEqual(200);
  for (const table of [promptAttacks, benignTexts]) {
    expect(new Set(table.map(({ type, body }) => type + body)).size).toBe(table.length);
  }
});

describe("an attack", () => {
  test.each(promptAttacks)("$type: $name", async ({ type, body }) => {
    const said = await guard.body(guard.respond(type), body);
    expect(said).toMatchObject({
      action: "deny",
      denial: { code: "prompt-guard.blocked", status: 403 },
    });
    // Nothing of the text comes back.
    expect(JSON.stringify(said)).not.toContain("evil.example");
  });

  test.each(promptAttacks)("as the result of a tool: $name", async ({ body }) => {
    const result = { jsonrpc: "2.0", id: 3, result: { content: [{ type: "text", text: body }] } };
    const written = await guard.passed("application/json", JSON.stringify(result));
    expect(JSON.parse(written ?? "{}")).toMatchObject({
      jsonrpc: "2.0",
      id: 3,
      result: { isError: true },
    });
  });

  test.each(promptAttacks)("in a record of an API: $name", async ({ body }) => {
    const record = JSON.stringify({ id: 7, items: [{ title: "x", body }] });
    expect(await guard.passed("application/json", record)).toBeUndefined();
  });

  test.each(promptAttacks)("as an event: $name", async ({ body }) => {
    const context = guard.respond("text/event-stream");
    const data = Buffer.from(JSON.stringify({ text: body }));
    expect(await guard.plugin.onFrame?.(context, { data, last: false })).toMatchObject({
      action: "deny",
    });
  });
});

describe("a text that instructs nobody", () => {
  test.each(benignTexts)("$type: $name", async ({ type, body }) => {
    expect(await guard.passed(type, body)).toBe(body);
    expect(await guard.passed("application/json", JSON.stringify({ text: body }))).toBeDefined();
  });

  test("loses nothing to a mark that takes invisible characters out", async () => {
    const marking = new GuardBench({ rules: [{ name: "all", threshold: 0, action: "mark" }] });
    const kept = new Set([
      "emoji",
      "many emoji",
      "Hebrew",
      "Arabic",
      "Persian",
      "Hindi",
      "Malayalam",
      "Sinhala",
      "Bengali",
    ]);
    for (const { name, type, body } of benignTexts) {
      if (!kept.has(name)) continue;
      expect(await marking.passed(type, body), name).toContain(body);
    }
  });
});
