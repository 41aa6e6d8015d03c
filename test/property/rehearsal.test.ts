/**
 * What is explained of a request is what becomes of it: any pipeline, any request.
 *
 * Both sides run the same code, so that each is also compared with a small model of what should come out.
 */
import * as fc from "fast-check";
import { pino } from "pino";
import { expect, test } from "vitest";
import { judgeProbe, type ProbeVerdict } from "../../src/cli/rehearsal/verdict.ts";
import { readProbe } from "../../src/cli/rehearsal/probe.ts";
import { HeaderList } from "../../src/http/headers.ts";
import { parseAuthority } from "../../src/net/destination.ts";
import { assemble } from "../../src/pipeline/assemble.ts";
import { Cancellation } from "../../src/pipeline/cancellation.ts";
import { RequestContext, type Stage } from "../../src/pipeline/context.ts";
import { makeFlow } from "../../src/pipeline/flow.ts";
import type { Pipeline, Verdict } from "../../src/pipeline/pipeline.ts";
import {
  allow,
  type Decision,
  definePlugin,
  deny,
  exempt,
  modify,
  observe,
  type Plugin,
  respond,
  skip,
} from "../../src/pipeline/plugin.ts";
import { PluginBench } from "../support/plugin-bench.ts";

/** What a plugin does in one hook. The last four look at what others left. */
const behaviours = [
  "allow",
  "skip",
  "exempt",
  "observe",
  "modify",
  "deny",
  "respond",
  "silent",
  "throw",
  "leave-fact",
  "leave-field",
  "leave-path",
  "deny-fact",
  "deny-field",
  "deny-path",
  "deny-body",
] as const;
type Behaviour = (typeof behaviours)[number];

interface PluginSpec {
  readonly onError: "enforce" | "observe" | "off";
  readonly stages: readonly Stage[];
  readonly isAsync: boolean;
  readonly readsBody: boolean;
  readonly wantsBody: boolean | undefined;
  readonly request: Behaviour | undefined;
  readonly credential: Behaviour | undefined;
}

interface Case {
  readonly plugins: readonly PluginSpec[];
  readonly otherwise: "allow" | "deny";
  readonly stage: Stage;
  /** At the connect stage: the bridge opens the connection. */
  readonly isBridged: boolean;
  readonly body: string | undefined;
}

/** What a hook reads and writes. */
interface Surroundings {
  facts: Set<string>;
  field: boolean;
  path: string;
  body: string | undefined;
}

const behaviour = fc.constantFrom(...behaviours);
const plugin: fc.Arbitrary<PluginSpec> = fc.record({
  onError: fc.constantFrom("enforce", "enforce", "observe", "observe", "off"),
  stages: fc.constantFrom<readonly Stage[]>(["request"], ["connect"], ["connect", "request"]),
  isAsync: fc.boolean(),
  readsBody: fc.boolean(),
  wantsBody: fc.constantFrom(undefined, true, false),
  request: fc.option(behaviour, { nil: undefined, freq: 8 }),
  credential: fc.option(behaviour, { nil: undefined, freq: 1 }),
});
const cases: fc.Arbitrary<Case> = fc.record({
  plugins: fc.array(plugin, { minLength: 1, maxLength: 6 }),
  otherwise: fc.constantFrom("allow", "deny"),
  stage: fc.constantFrom<Stage>("request", "request", "request", "connect"),
  isBridged: fc.boolean(),
  body: fc.constantFrom(undefined, "good", "bad"),
});

const denial = { code: "policy.forbidden", message: "no" };
const reply = { status: 299, headers: {}, body: Buffer.from("instead") };

/** The plugin's own code, on a context of the pipeline. */
function act(what: Behaviour, context: RequestContext): Decision | undefined {
  const refuseIf = (refused: boolean): Decision => (refused ? deny(what, denial) : skip("other"));
  switch (what) {
    case "allow":
      return allow(what);
    case "skip":
      return skip(what);
    case "exempt":
      return exempt(what);
    case "observe":
      return observe(what);
    case "modify":
      return modify(what);
    case "deny":
      return deny(what, denial);
    case "respond":
      return respond(what, reply);
    case "silent":
      return undefined;
    case "throw":
      throw new Error("a fault");
    case "leave-fact":
      context.facts.set("fact", {});
      return observe(what);
    case "leave-field":
      context.headers.set("X-Left", "1");
      return modify(what);
    case "leave-path":
      context.rewritePath("/left");
      return modify(what);
    case "deny-fact":
      return refuseIf(context.facts.has("fact"));
    case "deny-field":
      return refuseIf(context.headers.has("x-left"));
    case "deny-path":
      return refuseIf(context.path === "/left");
    case "deny-body":
      return refuseIf(context.body?.toString() === "bad");
  }
}

function instance(spec: PluginSpec): Plugin {
  const { isAsync, wantsBody, request, credential } = spec;
  const run = (what: Behaviour, context: RequestContext) =>
    isAsync ? Promise.resolve().then(() => act(what, context)) : act(what, context);
  return {
    onFinish: () => undefined,
    ...(wantsBody === undefined ? {} : { wantsBody: () => wantsBody }),
    ...(request === undefined ? {} : { onRequest: (context) => run(request, context) }),
    ...(credential === undefined
      ? {}
      : {
          onCredential: (context) => run(credential, context),
          describeCredential: async (context) =>
            isAttached(credential) ? "a token" : await run(credential, context),
        }),
  };
}

/** What a credential plugin attaches is described; whatever else it says is said in a rehearsal, too. */
function isAttached(what: Behaviour): boolean {
  return what === "modify" || what.startsWith("leave-f") || what === "leave-path";
}

const log = pino({ level: "silent" });

async function build({ plugins, otherwise }: Case, counted: string[]): Promise<Pipeline> {
  const definitions = plugins.map((spec, index) =>
    definePlugin<never>({
      name: `p${index}`,
      description: "made up",
      stages: spec.stages,
      ...(spec.readsBody ? { body: { request: "read" } as const } : {}),
      create: () => instance(spec),
    }),
  );
  const entries = plugins.map(({ onError }, index) => ({
    name: `p${index}`,
    onError,
    allowWeakenedAuth: false,
  }));
  const assembly = await assemble(entries, {
    direction: "outbound",
    otherwise,
    log,
    definitions,
    depsFor: () => new PluginBench().deps,
    onInvocation: (_direction, { plugin: name }) => counted.push(name),
  });
  if (assembly.kind === "rejected") throw new Error(JSON.stringify(assembly.problems));
  return assembly.pipeline;
}

/** The message as the proxy makes it: the body is there when some step needs it. */
function contextOf({ stage, body }: Case, pipeline: Pipeline): RequestContext {
  const isConnect = stage === "connect";
  const destination = parseAuthority(
    isConnect ? "svc.test:81" : "svc.test:80",
    isConnect ? "tcp" : "http",
  );
  const context = new RequestContext({
    flow: makeFlow({
      direction: "outbound",
      transport: isConnect ? "connect" : "http",
      client: { address: "127.0.0.1", port: 0 },
      destination,
    }),
    stage,
    method: isConnect ? "CONNECT" : "POST",
    path: isConnect ? "" : "/",
    host: destination.authority,
    headers: new HeaderList(["Host", destination.hostHeader]),
    hasBody: !isConnect && body !== undefined,
    cancellation: new Cancellation(),
  });
  if (context.hasBody && pipeline.bodyNeed(context) !== "nobody")
    context.content.load(Buffer.from(body ?? ""));
  return context;
}

interface ExpectedStep {
  readonly plugin: string;
  readonly action: string;
  readonly reason: string;
  readonly isObserved: boolean;
  readonly isSilent: boolean;
  readonly isAttached: boolean;
}

interface Expected {
  readonly verdict: "allow" | "deny" | "respond";
  readonly by: string | undefined;
  readonly code: string | undefined;
  readonly steps: readonly ExpectedStep[];
}

type ModelAction = "allow" | "skip" | "exempt" | "observe" | "modify" | "deny" | "respond";

/** The same behaviours on the model's own state. */
function model(what: Behaviour, at: Surroundings): readonly [ModelAction, string] {
  const refuseIf = (refused: boolean) => (refused ? (["deny", what] as const) : other);
  const other = ["skip", "other"] as const;
  if (what === "silent") return ["skip", "nothing_to_say"];
  if (what === "throw") return ["deny", "plugin_fault"];
  if (what === "leave-fact") {
    at.facts.add("fact");
    return ["observe", what];
  }
  if (what === "leave-field") at.field = true;
  if (what === "leave-path") at.path = "/left";
  if (what === "leave-field" || what === "leave-path") return ["modify", what];
  if (what === "deny-fact") return refuseIf(at.facts.has("fact"));
  if (what === "deny-field") return refuseIf(at.field);
  if (what === "deny-path") return refuseIf(at.path === "/left");
  if (what === "deny-body") return refuseIf(at.body === "bad");
  return [what, what];
}

/** What the documents say of such a pipeline. */
function expectedOf(one: Case, isRehearsed: boolean): Expected {
  const { plugins, otherwise, stage, isBridged, body } = one;
  const built = plugins.flatMap((spec, index) =>
    spec.onError === "off" ? [] : [{ ...spec, name: `p${index}` }],
  );
  const isRead = built.some(({ readsBody, wantsBody }) => readsBody && wantsBody !== false);
  const at: Surroundings = {
    facts: new Set(),
    field: false,
    path: stage === "connect" ? "" : "/",
    body: isRead && stage === "request" ? body : undefined,
  };
  const asked = built
    .filter(({ stages }) => stages.includes(stage))
    .map((spec) => ({ ...spec, what: spec.request, isCredential: false }));
  if (stage === "request")
    asked.push(...built.map((spec) => ({ ...spec, what: spec.credential, isCredential: true })));
  const steps: ExpectedStep[] = [];
  let consent: string | undefined;
  for (const { what, name, onError, isCredential } of asked) {
    if (what === undefined) continue;
    const isObserved = onError === "observe";
    const described = isRehearsed && isCredential && isAttached(what);
    const seen = isObserved ? { ...at, facts: new Set(at.facts) } : at;
    const [action, reason] = described ? (["modify", "would_attach"] as const) : model(what, seen);
    if (isObserved) at.facts = seen.facts;
    steps.push({
      plugin: name,
      action: action === "exempt" ? "skip" : action,
      reason,
      isObserved,
      isSilent: what === "silent",
      isAttached: described,
    });
    if (isObserved) continue;
    if (action === "deny") {
      const code = what === "throw" ? "plugin.fault" : denial.code;
      return { verdict: "deny", by: name, code, steps };
    }
    if (action === "respond") return { verdict: "respond", by: name, code: undefined, steps };
    if (action === "allow" || action === "modify" || action === "exempt") consent ??= name;
  }
  const isDeferred = stage === "connect" && isBridged;
  if (consent === undefined && otherwise === "deny" && !isDeferred)
    return { verdict: "deny", by: undefined, code: "policy.forbidden", steps };
  return { verdict: "allow", by: consent, code: undefined, steps };
}

/** What the pass left behind, in the words of the model. */
function passed(verdict: Verdict, context: RequestContext) {
  const { invocations } = context;
  const steps = invocations.map(({ plugin: name, action, reason, shadow = false }) => ({
    plugin: name,
    action,
    reason,
    shadow,
  }));
  if (verdict.kind === "denial")
    return { verdict: "deny", by: verdict.denial.plugin, code: verdict.denial.code, steps };
  return { verdict: verdict.kind === "permit" ? "allow" : "respond", steps };
}

async function explain(one: Case, pipeline: Pipeline): Promise<ProbeVerdict> {
  const { stage, body, isBridged } = one;
  const probe = readProbe({
    ...(stage === "connect" ? { connect: "svc.test:81" } : { url: "http://svc.test/" }),
    ...(stage === "connect" ? {} : { method: "POST", ...(body === undefined ? {} : { body }) }),
  });
  if (typeof probe === "string") throw new Error(probe);
  return judgeProbe(probe, {
    pipeline,
    skipHosts: { matches: () => false },
    bridge: isBridged ? { decide: () => ({ action: "bridge" }) } : undefined,
    maxBodyBytes: 1_000,
  });
}

async function agree(one: Case): Promise<void> {
  const counted: string[] = [];
  const pipeline = await build(one, counted);

  const context = contextOf(one, pipeline);
  const deferDefault = one.stage === "connect" && one.isBridged;
  const verdict = await pipeline.runRequest(context, { deferDefault });
  const real = expectedOf(one, false);
  const recorded = real.steps.filter(({ isSilent }) => !isSilent);
  expect(passed(verdict, context)).toEqual({
    verdict: real.verdict,
    ...(real.verdict === "deny" ? { by: real.by, code: real.code } : {}),
    steps: recorded.map(({ plugin: name, action, reason, isObserved }) => ({
      plugin: name,
      action: action === "respond" ? "modify" : action,
      reason,
      shadow: isObserved && (action === "deny" || action === "respond"),
    })),
  });
  expect(pipeline.hasAsked(context)).toBe(real.steps.length > 0);
  expect(counted).toHaveLength(recorded.length);

  const explained = await explain(one, pipeline);
  const rehearsed = expectedOf(one, true);
  expect(rehearsed.verdict).toBe(real.verdict);
  expect(explained).toMatchObject({
    verdict: rehearsed.verdict === "allow" ? "allow" : "deny",
    stages: [{ verdict: rehearsed.verdict }],
  });
  expect(explained.plugin).toBe(rehearsed.by);
  expect(explained.code).toBe(rehearsed.code);
  const said = explained.stages[0]?.steps ?? [];
  expect(said.map((step) => ({ ...step, fault: undefined }))).toEqual(
    rehearsed.steps.map(({ plugin: name, action, reason, isObserved }) => ({
      plugin: name,
      action,
      reason,
      ...(isObserved ? { observed: true } : {}),
    })),
  );
  const attaching = rehearsed.steps.filter((step) => step.isAttached && !step.isObserved);
  expect(explained.credentials.map(({ plugin: name }) => name)).toEqual(
    rehearsed.verdict === "allow" ? attaching.map(({ plugin: name }) => name) : [],
  );
  // A rehearsal leaves no trace in the counters.
  expect(counted).toHaveLength(recorded.length);
}

test("explain and the proxy's own pass agree with each other and with the model", async () => {
  await fc.assert(fc.asyncProperty(cases, agree), {
    numRuns: 2_000,
    interruptAfterTimeLimit: 3_000,
    markInterruptAsFailure: false,
  });
});
