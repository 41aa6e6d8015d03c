import * as fc from "fast-check";
import { expect, test } from "vitest";
import { createLogger, writeFields } from "../../../src/telemetry/log.ts";

function lines() {
  const written: string[] = [];
  const log = createLogger("info", { write: (line: string) => void written.push(line) });
  return { log, written };
}

/** The time may differ by a millisecond between two lines. */
const withoutTime = (line: string | undefined): string | undefined =>
  line?.replace(/"time":"[^"]+"/, '"time":""');

const value = fc.oneof(
  fc.string({ unit: "binary", maxLength: 80 }),
  fc.string({ maxLength: 80 }),
  fc.constantFrom("\u2028", "\\", '"', "\0", "é", "\x7f"),
  fc.integer({ min: 0 }),
  fc.array(fc.string({ unit: "binary", maxLength: 8 }), { maxLength: 3 }),
  fc.constant(undefined),
);
const names = ["flow", "host", "path", "status", "subject", "caller", "durationMs"] as const;

test("a line of fields is byte for byte the line that the logger writes", () => {
  const { log, written } = lines();
  fc.assert(
    fc.property(fc.array(value, { minLength: 7, maxLength: 7 }), (values) => {
      written.length = 0;
      const object: Record<string, unknown> = {};
      for (const [index, name] of names.entries()) {
        if (values[index] !== undefined) object[name] = values[index];
      }
      log.info(object, "flow");
      writeFields(
        log,
        names.flatMap((name, index) => [name, values[index]]),
        "flow",
      );
      expect(withoutTime(written[1])).toBe(withoutTime(written[0]));
      expect(JSON.parse(written[1] ?? "")).toMatchObject(object);
    }),
    { numRuns: 2_000 },
  );
});

test("the level decides", () => {
  const { log, written } = lines();
  log.level = "warn";
  writeFields(log, ["flow", "1"], "flow");
  expect(written).toEqual([]);
  log.level = "info";
  writeFields(log, ["flow", "1"], "flow");
  expect(written).toHaveLength(1);
});
