import { expect, test } from "vitest";
import { allDefinitions, definitionsFor } from "../../../src/app/definitions.ts";
import { parseConfig } from "../../../src/config/load.ts";
import { builtinNames } from "../../../src/plugins/by-name.ts";

function file(...names: readonly string[]) {
  const plugins = names.map((name) => ({ name, on_error: "off" }));
  const text = JSON.stringify({
    listener: { roles: ["forward"] },
    pipeline: { outbound: { plugins } },
  });
  const loaded = parseConfig(Buffer.from(text), "config.yaml");
  if (loaded.kind === "rejected")
    throw new Error(loaded.problems.map(({ message }) => message).join("\n"));
  return loaded;
}

const namesOf = (definitions: readonly { readonly name: string }[]): string[] =>
  definitions.map(({ name }) => name);

test("only the plugins that the file names are loaded", async () => {
  expect(await definitionsFor(file())).toEqual([]);
  const named = await definitionsFor(file("static-inject", "opa", "static-inject"));
  expect(namesOf(named)).toEqual(["static-inject", "opa"]);
});

test("a file that names an unknown plugin gets all of them, for the list in its refusal", async () => {
  expect(namesOf(await definitionsFor(file("opa", "no-such-plugin")))).toEqual(builtinNames);
});

test("every plugin is loaded under its own name", async () => {
  expect(namesOf(await allDefinitions(file()))).toEqual(builtinNames);
});
