/** From the entries of a file to a pipeline, or to everything that is wrong with them. */
import { pino } from "pino";
import { describe, expect, test } from "vitest";
import { z } from "zod";
import {
  assemble,
  type AssemblyProblem,
  type PluginEntry,
} from "../../../src/pipeline/assemble.ts";
import {
  type AnyPluginDefinition,
  definePlugin,
  type Plugin,
  PluginConfigError,
  type PluginDefinition,
} from "../../../src/pipeline/plugin.ts";
import { PluginBench } from "../../support/plugin-bench.ts";

const entry = (name: string, over: Partial<PluginEntry> = {}): PluginEntry => ({
  name,
  onError: "enforce",
  allowWeakenedAuth: false,
  ...over,
});

function plain(name: string, over: Partial<PluginDefinition<never>> = {}): AnyPluginDefinition {
  return definePlugin<never>({ name, description: name, create: () => ({}), ...over });
}

function assembled(entries: readonly PluginEntry[], definitions: readonly AnyPluginDefinition[]) {
  const made: { readonly instance: string; readonly origins: readonly string[] }[] = [];
  const assembly = assemble(entries, {
    direction: "outbound",
    otherwise: "deny",
    log: pino({ level: "silent" }),
    definitions,
    depsFor: (instance, origins) => {
      made.push({ instance, origins });
      return new PluginBench().deps;
    },
  });
  return { assembly, made };
}

async function problemsOf(
  entries: readonly PluginEntry[],
  definitions: readonly AnyPluginDefinition[],
): Promise<readonly AssemblyProblem[]> {
  const assembly = await assembled(entries, definitions).assembly;
  if (assembly.kind === "assembled") throw new Error("assembled");
  return assembly.problems;
}

describe("a pipeline", () => {
  test("has the steps in the order of the file, without those that are off", async () => {
    const definitions = [
      plain("a"),
      plain("b", { stages: ["connect"], observes: true }),
      plain("c"),
    ];
    const entries = [
      entry("c", { onError: "observe" }),
      entry("a", { onError: "off" }),
      entry("b", { id: "mine" }),
    ];
    const { assembly, made } = assembled(entries, definitions);
    const built = await assembly;
    if (built.kind === "rejected") throw new Error("not assembled");
    expect(built.pipeline.steps).toMatchObject([
      { name: "c", onError: "observe", stages: ["request"], body: {} },
      { name: "b", onError: "enforce", stages: ["connect"], observes: true },
    ]);
    expect(made).toEqual([
      { instance: "c", origins: [] },
      { instance: "mine", origins: [] },
    ]);
  });

  test("gives an instance its parsed settings, and the way to what they name", async () => {
    const given: unknown[] = [];
    const definition = definePlugin({
      name: "caller",
      description: "calls",
      config: z.strictObject({ url: z.string(), retries: z.number().default(3) }),
      body: { request: "read", response: "read" },
      origins: ({ url }) => [url],
      create: (config): Plugin => {
        given.push(config);
        return { body: { response: "read" } };
      },
    });
    const config = { url: "https://idp.test" };
    const { assembly, made } = assembled(
      [entry("caller", { config })],
      [definition as unknown as AnyPluginDefinition],
    );
    const built = await assembly;
    expect(given).toEqual([{ url: "https://idp.test", retries: 3 }]);
    expect(made).toEqual([{ instance: "caller", origins: ["https://idp.test"] }]);
    // What the instance needs counts, where it is less than the definition's.
    expect(built.kind === "assembled" && built.pipeline.steps[0]?.body).toEqual({
      response: "read",
    });
  });
});

describe("problems", () => {
  test("of names: all are told, with what there is", async () => {
    const problems = await problemsOf(
      [entry("x"), entry("a"), entry("gone")],
      [plain("a"), plain("gone", { unavailable: "it needs a broker" })],
    );
    expect(problems).toMatchObject([
      { entry: 0, path: ["name"], message: 'unknown plugin "x" (registered: [a])' },
      {
        entry: 2,
        path: ["name"],
        message: 'plugin "gone" is not available in this version: it needs a broker',
      },
    ]);
  });

  test.each<[name: string, order: readonly string[], message: string | undefined]>([
    ["missing", ["needs"], 'requires "a", which is not configured in this chain'],
    ["late", ["needs", "a"], '(position 1) requires "a" (position 2) to appear earlier'],
    ["in place", ["a", "needs"], undefined],
    [
      "all missing",
      ["needs-some"],
      "requires at least one of [a, b], and none are configured in this chain",
    ],
    [
      "all late",
      ["needs-some", "b", "a"],
      "(position 1) requires one of [a, b], which must appear earlier",
    ],
    ["one in place", ["b", "needs-some", "a"], undefined],
  ])("of relations: %s", async (_name, order, message) => {
    const definitions = [
      plain("a"),
      plain("b"),
      plain("needs", { requires: ["a"] }),
      plain("needs-some", { requiresAny: ["a", "b"] }),
    ];
    const assembly = await assembled(
      order.map((name) => entry(name)),
      definitions,
    ).assembly;
    const problems = assembly.kind === "rejected" ? assembly.problems : [];
    expect(problems).toHaveLength(message === undefined ? 0 : 1);
    if (message !== undefined) expect(problems[0]?.message).toContain(message);
  });

  test("of relations: a plugin that is off is not there", async () => {
    const definitions = [plain("a"), plain("needs", { requires: ["a"] })];
    const problems = await problemsOf(
      [entry("a", { onError: "off" }), entry("needs")],
      definitions,
    );
    expect(problems).toMatchObject([{ entry: 1, message: expect.stringContaining("requires") }]);
  });

  test("of bodies: nobody reads or writes what was rewritten", async () => {
    const definitions = [
      plain("writer", { body: { request: "write" } }),
      plain("reader", { body: { request: "read" } }),
      plain("other-writer", { body: { response: "write" } }),
    ];
    expect(
      await problemsOf([entry("writer"), entry("reader"), entry("other-writer")], definitions),
    ).toMatchObject([
      { entry: 1, message: expect.stringContaining('reads bodies after "writer"') },
      { entry: 2, message: expect.stringContaining("both write bodies") },
    ]);
    const built = await assembled([entry("reader"), entry("writer")], definitions).assembly;
    expect(built).toHaveProperty("pipeline");
  });

  test.each(["observe", "off"] as const)(
    "of a weakened guard (%s): it has to be meant",
    async (onError) => {
      const definitions = [plain("gate", { authenticates: true })];
      expect(await problemsOf([entry("gate", { onError })], definitions)).toMatchObject([
        {
          entry: 0,
          path: ["on_error"],
          message: expect.stringContaining("allow_weakened_auth: true"),
        },
      ]);
      const meant = entry("gate", { onError, allowWeakenedAuth: true });
      expect(await assembled([meant], definitions).assembly).toHaveProperty("pipeline");
    },
  );

  test("of settings: each with its path, and the key that was meant", async () => {
    const config = z.strictObject({
      a: z.strictObject({ b: z.number(), count: z.number().optional() }),
    });
    const definition = definePlugin({ name: "p", description: "p", config, create: () => ({}) });
    const problems = await problemsOf(
      [entry("p", { config: { a: { b: "x", coutn: 1 } } }), entry("plain", { config: {} })],
      [definition as unknown as AnyPluginDefinition, plain("plain")],
    );
    expect(problems).toMatchObject([
      { entry: 0, path: ["config", "a", "b"] },
      { entry: 0, path: ["config", "a", "coutn"], suggestion: "count" },
      { entry: 1, path: ["config"], message: 'plugin "plain" does not accept configuration' },
    ]);
  });

  test("of instances: those made before are closed again", async () => {
    const closed: string[] = [];
    const closing = (name: string): AnyPluginDefinition =>
      plain(name, { create: () => ({ close: () => void closed.push(name) }) });
    const failing = (name: string, error: Error): AnyPluginDefinition =>
      plain(name, {
        create: () => {
          throw error;
        },
      });
    const placed = new PluginConfigError([{ path: ["bundle", 0], message: "is empty" }]);
    const definitions = [
      closing("first"),
      failing("placed", placed),
      failing("bare", new Error("no file")),
    ];
    const entries = [entry("first"), entry("placed"), entry("bare")];
    expect(await problemsOf(entries, definitions)).toEqual([
      { entry: 1, path: ["config", "bundle", 0], message: "is empty" },
      { entry: 2, path: ["config"], message: "no file" },
    ]);
    expect(closed).toEqual(["first"]);
  });
});
