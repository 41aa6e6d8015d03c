import { execFileSync } from "node:child_process";
import { parseEnv } from "node:util";
import { assert, property, string } from "fast-check";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { formatEnvironment, UnwritableValue } from "../../../src/cli/environment-format.ts";

const nasty = [
  "plain",
  "two words",
  "it's",
  'a "quote"',
  "$HOME and ${HOME} and $(id) and `id`",
  "back\\slash",
  "# not a comment",
  "line\nbreak",
  " padded ",
  "",
  "-Dx=localhost|127.*|[::1] -Dy=1",
];

describe("shell", () => {
  test.each(nasty)("a shell reads back %j", (value) => {
    const script = formatEnvironment([["VALUE", value]], "shell");
    const run = (shell: string): string =>
      execFileSync("sh", ["-c", `${shell}\nprintf %s "$VALUE"`], { encoding: "utf8" });
    expect(run(script)).toBe(value);
    // As people use it: through eval of a command substitution.
    expect(run(`eval "$(cat <<'END'\n${script}END\n)"`)).toBe(value);
  });

  test("no value ends the quotes", () => {
    assert(
      property(string({ maxLength: 40 }), (value) => {
        if (value.includes("\0")) return;
        const line = formatEnvironment([["X", value]], "shell");
        const quoted = line.slice("export X=".length, -1);
        // Between single quotes there is no single quote; what stands between the pieces is \' alone.
        expect(quoted).toMatch(/^'[^']*'(?:\\''[^']*')*$/);
        expect(quoted.slice(1, -1).replaceAll("'\\''", "'")).toBe(value);
      }),
      { numRuns: 300 },
    );
  });

  test("a NUL cannot be written", () => {
    expect(() => formatEnvironment([["X", "a\0b"]], "shell")).toThrow(UnwritableValue);
  });
});

describe("dotenv", () => {
  test("Node reads back whatever is written", () => {
    assert(
      property(string({ maxLength: 40 }), (value) => {
        let text;
        try {
          text = formatEnvironment([["X", value]], "dotenv");
        } catch (error) {
          expect(error).toBeInstanceOf(UnwritableValue);
          return;
        }
        expect(parseEnv(text)["X"]).toBe(value);
      }),
      { numRuns: 500 },
    );
  });

  test("what the readers disagree about is refused", () => {
    for (const value of ["it's", "${HOME}", "back\\slash", "line\nbreak"])
      expect(() => formatEnvironment([["X", value]], "dotenv")).toThrow(UnwritableValue);
  });

  test("paths and Java's options need no quotes, which docker would keep", () => {
    const text = formatEnvironment([["X", "/my dir/x.crt"]], "dotenv");
    expect(text).toBe("X=/my dir/x.crt\n");
    expect(formatEnvironment([["X", "-Da=localhost|127.* -Db=1"]], "dotenv")).not.toContain("'");
  });
});

describe("kubernetes", () => {
  test.each(nasty)("YAML and the kubelet read back %j", (value) => {
    const list = parse(formatEnvironment([["VALUE", value]], "kubernetes")) as unknown;
    // The kubelet replaces $(NAME) and reads $$ as $.
    const expected = value.replaceAll("$", () => "$$");
    expect(list).toEqual([{ name: "VALUE", value: expected }]);
  });
});
