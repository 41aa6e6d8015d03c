import { expect, test } from "vitest";
import { helpFor, usageFor } from "../../../../src/cli/arguments/usage.ts";

test("help without a command tells everything", () => {
  const text = helpFor(["--help"]);
  expect(text).toContain("authbridge-proxy tail");
  expect(text).toContain("Exit codes:");
});

test.each([
  ["explain", "--connect HOST:PORT", "--secret-file"],
  ["policy", "--from DENIALS", "--connect"],
  ["tail", "--secret-file FILE", "--bundle-file"],
  ["check", "--probe[=never]", "--limit"],
  ["run", "--policy FILE", "--binary"],
  ["init", "--config FILE", "--lenient  "],
])("help about %s has its own lines and options only", (command, own, foreign) => {
  const text = helpFor([command, "--help"]);
  expect(text).toContain(`authbridge-proxy ${command}`);
  expect(text).toContain(own);
  expect(text).not.toContain(foreign);
});

test("a mistake without a known command shows the commands and no options", () => {
  for (const argv of [[], ["frob"], ["--bogus"]]) {
    const text = usageFor(argv);
    expect(text).toContain("authbridge-proxy check --config FILE");
    expect(text).not.toContain("Options:");
  }
});
