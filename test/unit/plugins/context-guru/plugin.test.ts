/** Whose texts context-guru keeps, and who gets them. */
import { expect, test } from "vitest";
import type { RequestContext } from "../../../../src/pipeline/context.ts";
import type { Plugin, SessionReader } from "../../../../src/pipeline/plugin.ts";
import { contextGuru } from "../../../../src/plugins/context-guru/plugin.ts";
import { inferenceParser } from "../../../../src/plugins/parsers/inference.ts";
import { message, type MessageShape, PluginBench } from "../../../support/plugin-bench.ts";
import { requestsWith, serviceLog } from "../../../support/tool-outputs.ts";

const log = serviceLog(800);
const { path, body } = requestsWith(log)["openai chat"] ?? { path: "", body: {} };

/** An instance for which every message is of this session and this user, as far as they are given. */
function made(of: { readonly session?: string; readonly subject?: string }): Plugin {
  const bench = new PluginBench();
  const sessions: SessionReader = {
    intentOf: () => undefined,
    isInDoubt: () => false,
    scopeOf: () => ({}),
    sessionOf: () => of.session,
    subjectOf: () => of.subject,
  };
  return contextGuru.create(contextGuru.config?.parse({}) as never, { ...bench.deps, sessions });
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
