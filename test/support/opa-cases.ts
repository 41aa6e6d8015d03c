/** The acceptance cases of the decisions, for every engine that can hold the policy of test/fixtures/opa/cases. */
import { readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { HeaderList } from "../../src/http/headers.ts";
import { ResponseHalf } from "../../src/pipeline/context.ts";
import type { Decision } from "../../src/pipeline/decision.ts";
import type { Plugin } from "../../src/pipeline/plugin.ts";
import { opa } from "../../src/plugins/opa/plugin.ts";
import { eventually } from "./eventually.ts";
import { message, type MessageShape, PluginBench } from "./plugin-bench.ts";

/** Path and bytes of a bundle of test/fixtures/opa. */
export function fixture(name: string): { readonly path: string; readonly bytes: Buffer } {
  const path = new URL(`../fixtures/opa/${name}.tar.gz`, import.meta.url).pathname;
  return { path, bytes: readFileSync(path) };
}

/** A started instance whose policy is there. */
export async function readyPlugin(bench: PluginBench, config: unknown): Promise<Plugin> {
  const plugin = bench.create(opa, config);
  await plugin.start?.(new AbortController().signal);
  await eventually(() => plugin.ready?.() === true);
  return plugin;
}

/** What a plugin says of a request. */
export async function ask(plugin: Plugin, shape: MessageShape): Promise<Decision> {
  const decision = await plugin.onRequest?.(message(shape));
  if (decision === undefined) throw new Error("nobody answered");
  return decision;
}

/** What a plugin says of the answer to a request that it let pass. */
export async function askAnswer(
  plugin: Plugin,
  shape: MessageShape,
  status = 200,
): Promise<Decision> {
  const context = message(shape);
  const before = await plugin.onRequest?.(context);
  expect(before).toMatchObject({ action: "allow" });
  context.response = new ResponseHalf(status, HeaderList.fromRecord({ "X-Origin": "o" }));
  const decision = await plugin.onResponse?.(context);
  if (decision === undefined) throw new Error("nobody answered");
  return decision;
}

const forbidden = (text: string) => ({
  action: "deny",
  reason: "policy_denied",
  denial: { code: "policy.forbidden", message: text },
});

/** Runs N1-N5 and N7 against the engine of the configuration. */
export function decisionCases(
  engine: string,
  setUp: () => Promise<{ readonly config: unknown; close(): Promise<void> | void }>,
): void {
  describe(`decisions of ${engine}`, () => {
    let plugin: Plugin;
    let config: unknown;
    let engineUp: Awaited<ReturnType<typeof setUp>>;

    beforeAll(async () => {
      engineUp = await setUp();
      ({ config } = engineUp);
      plugin = await readyPlugin(new PluginBench(), config);
    });

    afterAll(async () => {
      await plugin.close?.();
      await engineUp.close();
    });

    test.each([
      ["N1: true", "/true", { action: "allow", reason: "policy_allowed" }],
      ["N1: false", "/false", forbidden("policy denied")],
      ["N2: {allow: true}", "/allow", { action: "allow" }],
      ["N2: {allow: false}", "/deny", forbidden("policy denied")],
      ["N2: {allow: false, reason}", "/reason", forbidden("access denied for tool")],
      ["N3: an unknown object", "/shape", forbidden("unrecognized policy result shape")],
      ["N3: a text", "/text", forbidden("unexpected decision type string")],
      ["N3: a number", "/number", forbidden("unexpected decision type number")],
      ["N3: null", "/nil", forbidden("no decision result")],
      ["N4: an undefined document", "/none", { action: "skip", reason: "no_policy_rule" }],
    ])("%s", async (_name, path, expected) => {
      expect(await ask(plugin, { path })).toMatchObject(expected);
    });

    test("N5: an evaluation error refuses, and does not say more to the client", async () => {
      const decision = await ask(plugin, { path: "/conflict" });
      expect(decision).toMatchObject({
        action: "deny",
        reason: "decision_error",
        denial: { code: "policy.forbidden", message: "OPA decision error" },
      });
      expect(decision.details?.["error"]).not.toBe("");
    });

    test("N4: on_undefined: deny refuses", async () => {
      const strict = await readyPlugin(new PluginBench(), {
        ...(config as object),
        on_undefined: "deny",
      });
      expect(await ask(strict, { path: "/none" })).toMatchObject({
        action: "deny",
        reason: "no_policy_rule",
        denial: { code: "policy.forbidden" },
      });
      await strict.close?.();
    });

    test.each(["inbound", "outbound"] as const)(
      "N7: %s messages are judged by their own documents",
      async (direction) => {
        expect(await ask(plugin, { direction, path: "/which" })).toMatchObject(
          forbidden(`authbridge/${direction}/request`),
        );
        const answer = await askAnswer(plugin, { direction, path: "/at-answer/which" });
        expect(answer).toMatchObject({
          reason: "response_policy_denied",
          denial: { code: "policy.forbidden", message: `authbridge/${direction}/response` },
        });
      },
    );

    test("an answer is allowed by the response document", async () => {
      expect(await askAnswer(plugin, { path: "/at-answer/true" })).toMatchObject({
        action: "allow",
        reason: "response_policy_allowed",
      });
    });
  });
}
