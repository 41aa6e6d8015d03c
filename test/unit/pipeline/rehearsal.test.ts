/** How plugins are asked about a message that nobody sends. */
import { expect, test } from "vitest";
import {
  allow,
  type Decision,
  deny,
  modify,
  type Plugin,
  respond,
  skip,
} from "../../../src/pipeline/plugin.ts";
import type { Explanation } from "../../../src/pipeline/rehearsal.ts";
import { pipelineOf, type StepShape } from "../../support/pipeline-of.ts";
import { message } from "../../support/plugin-bench.ts";

const denial = { code: "auth.unauthorized", message: "no" };

function rehearsed(...shapes: StepShape[]): Promise<Explanation> {
  return pipelineOf(shapes).rehearse(message());
}

/** A credential plugin that must not be asked for the credential itself. */
function attaching(describe?: Plugin["describeCredential"]): Plugin {
  return {
    onCredential: () => {
      throw new Error("fetched");
    },
    ...(describe === undefined ? {} : { describeCredential: describe }),
  };
}

test("a credential is described, not fetched, and its plugin consents", async () => {
  const said = await rehearsed(attaching(() => Promise.resolve("X-Key: a key")));
  expect(said).toEqual({
    verdict: "allow",
    by: { plugin: "step-0", action: "modify", reason: "would_attach" },
    steps: [{ plugin: "step-0", action: "modify", reason: "would_attach" }],
    credentials: [{ plugin: "step-0", attaches: "X-Key: a key" }],
  });
});

test("a plugin that describes nothing is taken to attach something", async () => {
  const { verdict, credentials } = await rehearsed(attaching());
  expect(verdict).toBe("allow");
  expect(credentials).toEqual([{ plugin: "step-0", attaches: "may attach a credential" }]);
});

test.each<[name: string, said: Decision | undefined, verdict: string]>([
  ["is refused", deny("no_key", denial), "deny"],
  ["stays as it was", skip("other_host"), "deny"],
  ["keeps its own token", allow("passthrough"), "allow"],
  ["is not spoken of", undefined, "deny"],
])("a credential that %s is not among those attached", async (_name, said, verdict) => {
  const explained = await rehearsed(attaching(() => said));
  expect(explained).toMatchObject({ verdict, credentials: [] });
  expect(explained.steps).toMatchObject([{ reason: said?.reason ?? "nothing_to_say" }]);
});

test("no credential is attached to what is refused, or by a plugin that only observes", async () => {
  const describing = attaching(() => "a key");
  const refusing = attaching(() => deny("no_key", denial));
  expect(await rehearsed(describing, refusing)).toMatchObject({ verdict: "deny", credentials: [] });
  const observed = { plugin: describing, onError: "observe" } as const;
  expect(await rehearsed({ onRequest: () => allow("x") }, observed)).toMatchObject({
    verdict: "allow",
    by: { plugin: "step-0" },
    credentials: [],
    steps: [{}, { reason: "would_attach", observed: true }],
  });
});

test("a plugin may be asked otherwise than in earnest", async () => {
  const asked: string[] = [];
  const plugin: Plugin = {
    onRequest: () => {
      asked.push("in earnest");
      return allow("asked");
    },
    rehearseRequest: () => deny("not_rehearsed", denial),
  };
  const explained = await rehearsed(plugin);
  expect(explained).toMatchObject({ verdict: "deny", by: { reason: "not_rehearsed" } });
  expect(explained.denial).toEqual({ ...denial, plugin: "step-0" });
  expect(asked).toEqual([]);
  expect(await pipelineOf([plugin]).runRequest(message())).toHaveProperty("permit");
});

test("an answer in place of the origin is told with its step", async () => {
  const reply = { status: 299, headers: {}, body: Buffer.from("instead") };
  const explained = await rehearsed(
    { onRequest: () => modify("x") },
    { onRequest: () => respond("mine", reply) },
  );
  expect(explained).toMatchObject({ verdict: "respond", by: { plugin: "step-1" } });
});

test("whose word counted is the step itself, also where two have one name", async () => {
  const named = (details: Record<string, string>, said = allow) => ({
    plugin: { onRequest: () => said("rule", details) },
    name: "policy",
  });
  const explained = await rehearsed(named({ rule: "first" }), named({ rule: "second" }));
  expect(explained.by?.details).toEqual({ rule: "first" });
});

test("where nobody decides the default does, and a deferred one is told", async () => {
  const silent: Plugin = { onRequest: () => undefined };
  const refused = await rehearsed(silent);
  expect(refused).not.toHaveProperty("by");
  expect(refused.denial?.message).toContain("pipeline.outbound.default");
  const deferred = await pipelineOf([silent]).rehearse(message(), { deferDefault: true });
  expect(deferred).toMatchObject({ verdict: "allow", isDeferred: true });
});

test("a fault is told to the operator only", async () => {
  const explained = await rehearsed({ onRequest: () => Promise.reject(new Error("detail")) });
  expect(explained.steps).toEqual([
    { plugin: "step-0", action: "deny", reason: "plugin_fault", fault: "detail" },
  ]);
  expect(explained.denial?.message).not.toContain("detail");
});
