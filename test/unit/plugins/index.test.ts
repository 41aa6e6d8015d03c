import { pino } from "pino";
import { expect, test } from "vitest";
import { assemble, type PluginEntry } from "../../../src/pipeline/assemble.ts";
import { builtinPlugins } from "../../../src/plugins/index.ts";
import { bearerOf, message, PluginBench } from "../../support/plugin-bench.ts";

const entry = (name: string, rest: Partial<PluginEntry> = {}): PluginEntry => ({
  name,
  onError: "enforce",
  allowWeakenedAuth: false,
  ...rest,
});

function assembled(entries: readonly PluginEntry[], bench = new PluginBench()) {
  return assemble(entries, {
    definitions: builtinPlugins,
    direction: "outbound",
    otherwise: "allow",
    log: pino({ level: "silent" }),
    depsFor: () => bench.deps,
  });
}

test.each(["cpex", "lineage-telemetry"])(
  "a chain that names %s refuses the start in words",
  async (name) => {
    const made = await assembled([entry(name, { config: { anything: 1 } })]);
    expect(made.kind === "rejected" ? made.problems[0]?.message : "").toContain(
      `plugin "${name}" is not available in this version`,
    );
  },
);

test("every key of every plugin is described", () => {
  const undescribed = builtinPlugins.flatMap(({ name, config }) => {
    const shape: unknown = config === undefined ? {} : Reflect.get(config, "shape");
    return Object.entries(shape as Record<string, { description?: string }>)
      .filter(([, schema]) => schema.description === undefined)
      .map(([key]) => `${name}.${key}`);
  });
  expect(undescribed).toEqual([]);
});

test("P4 jwt-validation under observe needs the word that allows it", async () => {
  const config = { issuer: "https://id.example/realms/r", audience: "a" };
  const weakened = entry("jwt-validation", { onError: "observe", config });
  expect(await assembled([weakened])).toHaveProperty("kind", "rejected");
  expect(await assembled([{ ...weakened, allowWeakenedAuth: true }])).toHaveProperty("pipeline");
});

test("P4 F2 under observe no credential reaches the wire", async () => {
  const config = { source: "mappings", mappings: { "api.example.com": "REAL" } };
  const made = await assembled([entry("static-inject", { onError: "observe", config })]);
  if (made.kind === "rejected") throw new Error(JSON.stringify(made.problems));
  const context = message({ headers: bearerOf("stand-in") });
  expect(await made.pipeline.runRequest(context)).toHaveProperty("permit");
  expect(context.headers.get("authorization")).toBe("Bearer stand-in");
  expect(context.invocations).toMatchObject([{ plugin: "static-inject", action: "modify" }]);
});
