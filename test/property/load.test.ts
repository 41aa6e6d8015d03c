import * as fc from "fast-check";
import { expect, test } from "vitest";
import { stringify } from "yaml";
import { durationMs, parseDuration } from "../../src/duration.ts";
import { expand } from "../../src/config/expand.ts";
import { parseConfig } from "../../src/config/load.ts";
import { formatProblem, nearestKey } from "../../src/yaml/problem.ts";

const limit = { interruptAfterTimeLimit: 1500, markInterruptAsFailure: false };

const nameWord = fc.constantFrom("A", "B_1", "UNSET", "with space", "");
const text = fc
  .array(fc.oneof(fc.string({ maxLength: 5 }), fc.constantFrom("$", "${", "}", "\n"), nameWord))
  .map((parts) => parts.join(""));
const environment = { A: "alpha", B_1: "two\nlines", "": "never" };

test("text without a dollar sign is never changed", () => {
  fc.assert(
    fc.property(
      fc.string().map((raw) => raw.replaceAll("$", "")),
      (source) => {
        expect(expand(source, environment).text).toBe(source);
      },
    ),
    limit,
  );
});

test("expansion again changes nothing once no variable is set", () => {
  fc.assert(
    fc.property(text, (source) => {
      const once = expand(source, {}).text;
      expect(expand(once, {}).text).toBe(once);
    }),
    limit,
  );
});

test("offsets lead back to the same character wherever the text was copied", () => {
  fc.assert(
    fc.property(text, (source) => {
      const expansion = expand(source, environment);
      let before = 0;
      for (let offset = 0; offset <= expansion.text.length; offset++) {
        const from = expansion.sourceOffset(offset);
        expect(from).toBeGreaterThanOrEqual(before);
        expect(from).toBeLessThanOrEqual(source.length);
        const isCopied = source[from] !== "$";
        if (isCopied) expect(source[from]).toBe(expansion.text[offset]);
        before = from;
      }
    }),
    limit,
  );
});

test("no text makes the loader throw, and every problem has a place in the file", () => {
  fc.assert(
    fc.property(
      fc.oneof(
        text,
        fc.string({ unit: "binary", maxLength: 200 }),
        fc.json().map((json) => `listener: ${json}`),
      ),
      fc.boolean(),
      (source, lenient) => {
        const loaded = parseConfig(Buffer.from(source), "f.yaml", { lenient, env: environment });
        const remarks = loaded.kind === "loaded" ? loaded.warnings : loaded.problems;
        if (loaded.kind === "rejected") expect(remarks).not.toHaveLength(0);
        const lines = source.split("\n");
        for (const { line, column } of remarks) {
          expect(line).toBeGreaterThanOrEqual(1);
          expect(line).toBeLessThanOrEqual(lines.length);
          expect(column).toBeGreaterThanOrEqual(1);
        }
      },
    ),
    limit,
  );
});

test("no value of the file is repeated in a problem", () => {
  const canary = "c4n4ry";
  const block = fc.constantFrom(
    "listener",
    "limits",
    "egress",
    "session",
    "tls_bridge",
    "log",
    "mode",
  );
  const key = fc.constantFrom("roles", "max_body", "allow_ips", "ttl", "ports", "level", "enabled");
  const value = fc.constantFrom<unknown>(canary, [canary], { mode: canary }, [[canary]], {
    ports: [canary],
  });
  fc.assert(
    fc.property(block, key, value, (first, second, secret) => {
      const source = stringify({ [first]: { [second]: secret } });
      const loaded = parseConfig(Buffer.from(source), "f.yaml");
      const remarks = loaded.kind === "loaded" ? loaded.warnings : loaded.problems;
      expect(remarks.map(formatProblem).join("\n")).not.toContain(canary);
    }),
    limit,
  );
});

test("a duration in parts is the sum of its parts", () => {
  const part = fc.tuple(fc.nat(9999), fc.constantFrom("h", "m", "s", "ms"));
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 4 }), (parts) => {
      const words = parts.map(([number, unit]) => `${number}${unit}`);
      const sum = words.reduce((total, word) => total + durationMs(word), 0);
      expect(parseDuration(words.join(""))).toBe(sum);
    }),
    limit,
  );
});

test("a key with one letter too few is taken for itself", () => {
  const keys = ["forward_proxy_addr", "max_connections", "passthrough_hosts", "recheck_tunnels"];
  fc.assert(
    fc.property(fc.constantFrom(...keys), fc.nat(), (key, seed) => {
      const at = seed % key.length;
      expect(nearestKey(key.slice(0, at) + key.slice(at + 1), keys)).toBe(key);
    }),
    limit,
  );
});
