/** Whose texts context-guru keeps, and who gets them; and how much of an output is kept. */
import { describe, expect, test } from "vitest";
import type { RequestContext } from "../../../../src/pipeline/context.ts";
import type { Plugin, SessionReader } from "../../../../src/pipeline/plugin.ts";
import { contextGuru } from "../../../../src/plugins/context-guru/plugin.ts";
import { inferenceParser } from "../../../../src/plugins/parsers/inference.ts";
import { message, type MessageShape, PluginBench } from "../../../support/plugin-bench.ts";
import { requestsWith, serviceLog } from "../../../support/tool-outputs.ts";

const log = serviceLog(800);
const { path, body } = requestsWith(log)["openai chat"] ?? { path: "", body: {} };

/** An instance for which every message is of this session and this user, as far as they are given. */
function made(
  of: { readonly session?: string; readonly subject?: string },
  config: object = {},
): Plugin {
  const bench = new PluginBench();
  const sessions: SessionReader = {
    intentOf: () => undefined,
    isInDoubt: () => false,
    scopeOf: () => ({}),
    sessionOf: () => of.session,
    subjectOf: () => of.subject,
  };
  return contextGuru.create(contextGuru.config?.parse(config) as never, {
    ...bench.deps,
    sessions,
  });
}

async function shortened(plugin: Plugin, shape: MessageShape = {}): Promise<string> {
  const context: RequestContext = message({ path, body, ...shape });
  await inferenceParser.create({ endpoints: [] }, new PluginBench().deps).onRequest?.(context);
  await plugin.onRequest?.(context);
  return /\[context-guru ([0-9a-f]{20}):/.exec(context.body?.toString() ?? "")?.[1] ?? "";
}

async function status(plugin: Plugin, id: string, shape: MessageShape = {}): Promise<number> {
  const context = message({ path: `/texts/${id}`, to: "context-guru.internal:80", ...shape });
  const said = await plugin.onRequest?.(context);
  return said?.action === "respond" ? said.reply.status : 0;
}

test("an agent that names the session of another one gets nothing of it", async () => {
  const plugin = made({ session: "s" });
  const [mine, other] = [{ client: { caller: "a" } }, { client: { caller: "b" } }];
  const id = await shortened(plugin, mine);
  expect(id).not.toBe("");
  expect([await status(plugin, id, mine), await status(plugin, id, other)]).toEqual([200, 404]);
  expect(await status(plugin, id)).toBe(404);
});

test("a call that belongs to no session belongs to the user that it follows from, if there is one", async () => {
  const plugin = made({ subject: "alice" });
  expect(await status(plugin, await shortened(plugin))).toBe(200);
  expect(await shortened(made({}))).toBe("");
});

/** How many characters of an output are in the request that goes on. */
async function kept(text: string, config: object): Promise<number> {
  const { path, body } = requestsWith(text)["openai chat"] ?? { path: "", body: {} };
  const whole = JSON.stringify(body).length - text.length;
  const context = message({ path, body });
  await inferenceParser.create({ endpoints: [] }, new PluginBench().deps).onRequest?.(context);
  await made({ session: "s" }, config).onRequest?.(context);
  return (context.body?.length ?? 0) - whole;
}

describe("how much is kept", () => {
  /** Lines that have nothing in common, so that the middle has to be cut. */
  const words = (chars: number): string =>
    Array.from({ length: chars / 8 }, (_, at) =>
      `w${(at * 7_919) % 1_000_000}`.padEnd(7, "x"),
    ).join(" ");
  const text = words(40_000);

  test.each([
    ["balanced, which is the default", {}, 8_000],
    ["aggressive", { engine: { preset: "aggressive" } }, 3_000],
    ["keep_chars", { keep_chars: 1_000 }, 1_000],
    [
      "keep_chars beside a preset",
      { engine: { preset: "aggressive" }, keep_chars: 12_000 },
      12_000,
    ],
    ["off", { engine: { preset: "off" } }, 40_000],
    ["keep_chars of more than there is", { keep_chars: 100_000_000 }, 40_000],
  ])("%s", async (_what, config, about) => {
    const chars = await kept(text, config);
    expect(chars).toBeGreaterThan(about * 0.9);
    expect(chars).toBeLessThan(about * 1.1 + 400);
  });

  test.each([
    ["2,048 characters by default", {}, 2_048],
    ["min_chars", { min_chars: 10_000 }, 10_000],
  ])("outputs of fewer than %s stay as they are", async (_what, config, least) => {
    const short = { ...config, keep_chars: 256 };
    expect(await kept(text.slice(0, least - 1), short)).toBe(least - 1);
    expect(await kept(text.slice(0, least), short)).toBeLessThan(least / 2);
  });
});
