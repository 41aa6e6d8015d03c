/** What one step counts for: under enforce what it says, under observe nothing; a fault is a refusal. */
import { pino } from "pino";
import { describe, expect, test } from "vitest";
import { Cancellation } from "../../../src/pipeline/cancellation.ts";
import {
  allow,
  type Decision,
  deny,
  exempt,
  type Invocation,
  modify,
  observe,
  type Plugin,
  type RequestContext,
  respond,
  skip,
} from "../../../src/pipeline/plugin.ts";
import { pipelineOf } from "../../support/pipeline-of.ts";
import { message } from "../../support/plugin-bench.ts";

const denial = { code: "auth.unauthorized", message: "no" };
const reply = { status: 299, headers: {}, body: Buffer.from("instead") };
const ended = { status: 200, durationMs: 1 };

const observing = (plugin: Plugin) => ({ plugin, onError: "observe" }) as const;

/** A log that is read. */
function readableLog() {
  const lines: Record<string, unknown>[] = [];
  const write = (line: string): void => void lines.push(JSON.parse(line));
  return { lines, log: pino({ base: null }, { write }) };
}

test.each<[name: string, said: Decision]>([
  ["allows", allow("said")],
  ["changes", modify("said")],
  ["exempts", exempt("said")],
  ["refuses", deny("said", denial)],
  ["answers", respond("said", reply)],
])("a step that %s and only observes neither refuses nor consents", async (_name, said) => {
  const verdict = async (otherwise: "allow" | "deny") =>
    pipelineOf([observing({ onRequest: () => said })], { otherwise }).runRequest(message());
  expect(await verdict("deny")).toMatchObject({ denial: { code: "policy.forbidden" } });
  expect(await verdict("deny")).not.toHaveProperty("denial.plugin");
  expect(await verdict("allow")).toHaveProperty("permit");
});

describe("a fault", () => {
  const fault = new Error("secret detail");
  const plugins: readonly [name: string, plugin: Plugin][] = [
    [
      "thrown",
      {
        onRequest: () => {
          throw fault;
        },
      },
    ],
    ["of a promise", { onRequest: () => Promise.reject(fault) }],
  ];

  test.each(plugins)("%s refuses without its details, which are logged", async (_name, plugin) => {
    const { lines, log } = readableLog();
    const context = message();
    const verdict = await pipelineOf([plugin], { log, otherwise: "allow" }).runRequest(context);
    expect(verdict).toEqual({
      kind: "denial",
      denial: {
        code: "plugin.fault",
        message: "the request could not be checked",
        plugin: "step-0",
      },
    });
    expect(context.invocations).toMatchObject([{ action: "deny", reason: "plugin_fault" }]);
    const err = expect.objectContaining({ message: "secret detail" });
    expect(lines).toEqual([
      expect.objectContaining({ plugin: "step-0", msg: "plugin fault", err }),
    ]);
  });

  test.each(plugins)("%s of a step that only observes is recorded", async (_name, plugin) => {
    const context = message();
    const verdict = await pipelineOf([observing(plugin)], { otherwise: "allow" }).runRequest(
      context,
    );
    expect(verdict).toHaveProperty("permit");
    expect(context.invocations).toMatchObject([
      { action: "deny", reason: "plugin_fault", shadow: true },
    ]);
  });
});

test("a step that only observes changes nothing that others see", async () => {
  const seen: unknown[] = [];
  const changing: Plugin = {
    onRequest: (context) => {
      context.headers.set("X-Changed", "1");
      context.rewritePath("/changed");
      context.setBody(Buffer.from("changed"));
      context.setIdentity({ subject: "changed", scopes: [], claims: {} });
      context.sessionId = "theirs";
      return modify("changed");
    },
  };
  const reading: Plugin = {
    onRequest: ({ headers, path, body, identity, sessionId }) => {
      seen.push([headers.has("x-changed"), path, body?.toString(), identity?.subject, sessionId]);
      return allow("read");
    },
  };
  const context = message({ path: "/", body: "sent" });
  await pipelineOf([observing(changing), reading]).runRequest(context);
  // Whose conversation it is may be learned by watching.
  expect(seen).toEqual([[false, "/", "sent", undefined, "theirs"]]);
  expect(context.content.replaced).toBe(false);
});

test("whatever can be awaited is awaited, and what is there at once is not", async () => {
  // oxlint-disable-next-line unicorn/no-thenable -- a promise of somebody else
  const thenable = { then: (use: (said: Decision) => void) => use(allow("later")) };
  const later = pipelineOf([{ onRequest: () => thenable as unknown as Promise<Decision> }]);
  expect(await later.runRequest(message())).toHaveProperty("permit");
  const atOnce = pipelineOf([{ onRequest: () => allow("now") }, { onRequest: () => undefined }]);
  expect(atOnce.runRequest(message())).toHaveProperty("permit");
});

test("nobody is asked about a message whose client has left", async () => {
  const cancellation = new Cancellation();
  const asked: string[] = [];
  const pipeline = pipelineOf([
    {
      onRequest: async () => {
        asked.push("first");
        cancellation.abort();
        return allow("first");
      },
    },
    {
      onRequest: () => {
        asked.push("second");
        return allow("second");
      },
    },
  ]);
  expect(await pipeline.runRequest(message({ cancellation }))).toMatchObject({
    denial: { code: "pipeline.cancelled" },
  });
  expect(asked).toEqual(["first"]);
});

test("what was said is recorded with its phase and path, and counted", async () => {
  const counted: Invocation[] = [];
  const details = { rule: "r1" };
  const pipeline = pipelineOf(
    [{ onRequest: () => allow("fine", details), onResponse: () => respond("instead", reply) }],
    { onInvocation: (direction, invocation) => counted.push({ ...invocation, reason: direction }) },
  );
  const context = message({ path: "/a?secret=1" });
  await pipeline.runRequest(context);
  await pipeline.runResponse(context);
  const said = { plugin: "step-0", path: "/a" };
  expect(context.invocations).toEqual([
    { ...said, action: "allow", phase: "request", reason: "fine", details },
    { ...said, action: "modify", phase: "response", reason: "instead" },
  ]);
  expect(counted.map(({ reason }) => reason)).toEqual(["outbound", "outbound"]);
});

describe("the end of a message", () => {
  test("is told once, last step first, to those who were asked", async () => {
    const told: string[] = [];
    const finishing = (name: string, answer: Decision): Plugin => ({
      onRequest: () => answer,
      onFinish: (_context, { status }) => void told.push(`${name} ${status}`),
    });
    const pipeline = pipelineOf([
      finishing("first", skip("x")),
      finishing("second", deny("no", denial)),
      finishing("third", skip("x")),
    ]);
    const context = message();
    expect(pipeline.hasAsked(context)).toBe(false);
    await pipeline.runRequest(context);
    expect(pipeline.hasAsked(context)).toBe(true);
    await pipeline.finish(context, ended);
    await pipeline.finish(context, ended);
    expect(told).toEqual(["second 200", "first 200"]);
  });

  test("is told when the step has said what it thinks, also where the message is over before", async () => {
    const told: string[] = [];
    const { promise, resolve } = Promise.withResolvers<Decision>();
    const pipeline = pipelineOf([
      { onRequest: () => observe("x"), onFinish: () => void told.push("first") },
      {
        onRequest: () => promise.finally(() => told.push("said")),
        onFinish: () => void told.push("second"),
      },
    ]);
    const context = message();
    const running = pipeline.runRequest(context);
    const finished = pipeline.finish(context, ended);
    expect(told).toEqual([]);
    resolve(observe("x"));
    await running;
    await finished;
    expect(told).toEqual(["said", "second", "first"]);
  });

  test("reaches the next step when one fails", async () => {
    const { lines, log } = readableLog();
    const told: string[] = [];
    const pipeline = pipelineOf(
      [
        { onRequest: () => observe("x"), onFinish: () => void told.push("first") },
        {
          onRequest: () => observe("x"),
          onFinish: () => {
            throw new Error("a fault");
          },
        },
      ],
      { log },
    );
    const context = message();
    await pipeline.runRequest(context);
    await pipeline.finish(context, ended);
    expect(told).toEqual(["first"]);
    expect(lines).toEqual([
      expect.objectContaining({ plugin: "step-1", msg: "plugin finish failed", error: "a fault" }),
    ]);
  });

  test("is not told of a rehearsal, which counts nothing", async () => {
    const told: string[] = [];
    const pipeline = pipelineOf(
      [{ onRequest: () => allow("x"), onFinish: () => void told.push("finished") }],
      { onInvocation: () => told.push("counted") },
    );
    const context: RequestContext = message();
    expect(await pipeline.rehearse(context)).toMatchObject({ verdict: "allow" });
    expect(pipeline.hasAsked(context)).toBe(false);
    await pipeline.finish(context, ended);
    expect(told).toEqual([]);
  });
});
