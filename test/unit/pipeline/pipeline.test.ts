/** The order in which a pipeline asks, what its verdict is made of, and the Permit that only it can issue. */
import { describe, expect, test } from "vitest";
import { AddressSet } from "../../../src/net/address.ts";
import { Permit } from "../../../src/pipeline/pipeline.ts";
import {
  allow,
  type Decision,
  deny,
  exempt,
  modify,
  observe,
  type Plugin,
  replaceFrame,
  respond,
  skip,
} from "../../../src/pipeline/plugin.ts";
import { pipelineOf } from "../../support/pipeline-of.ts";
import { message } from "../../support/plugin-bench.ts";

const denial = { code: "auth.unauthorized", message: "no" };
const reply = { status: 299, headers: {}, body: Buffer.from("instead") };
const frame = (data: string, last = false) => ({ data: Buffer.from(data), last });

/** A plugin that says of each hook that it was asked. */
function noting(asked: string[], name: string, said: Decision = skip("x")): Plugin {
  const note =
    (hook: string, answer: Decision = skip("x")) =>
    () => {
      asked.push(`${name} ${hook}`);
      return answer;
    };
  return {
    onRequest: note("request", said),
    onCredential: note("credential"),
    onResponse: note("response"),
    onFrame: note("frame"),
  };
}

describe("a request", () => {
  test("is judged in the order of the file, then gets its credentials", async () => {
    const asked: string[] = [];
    const pipeline = pipelineOf([noting(asked, "a", allow("x")), noting(asked, "b")]);
    expect(await pipeline.runRequest(message())).toHaveProperty("permit");
    expect(asked).toEqual(["a request", "b request", "a credential", "b credential"]);
  });

  test.each<[name: string, said: Decision, verdict: object]>([
    ["refused", deny("no", denial), { kind: "denial", denial: { ...denial, plugin: "step-1" } }],
    ["answered", respond("mine", reply), { kind: "reply", reply }],
  ])("that is %s goes no further and gets no credential", async (_name, said, verdict) => {
    const asked: string[] = [];
    const chain = [allow("x"), said, allow("x")].map((each, at) => noting(asked, `${at}`, each));
    expect(await pipelineOf(chain).runRequest(message())).toEqual(verdict);
    expect(asked).toEqual(["0 request", "1 request"]);
  });

  test.each<[name: string, said: Decision | undefined, isConsent: boolean]>([
    ["allow", allow("x"), true],
    ["modify", modify("x"), true],
    ["exempt", exempt("x"), true],
    ["skip", skip("x"), false],
    ["observe", observe("x"), false],
    ["nothing", undefined, false],
  ])("of which only %s was said: consent %#", async (_name, said, isConsent) => {
    const saying = { onRequest: () => said };
    const verdict = await pipelineOf([saying]).runRequest(message());
    expect(verdict.kind).toBe(isConsent ? "permit" : "denial");
    if (!isConsent)
      expect(verdict).toHaveProperty(
        "denial.message",
        "no plugin of the outbound pipeline allowed api.example.com:80 (pipeline.outbound.default is deny)",
      );
    const open = await pipelineOf([saying], { otherwise: "allow" }).runRequest(message());
    expect(open).toHaveProperty("permit");
    const deferred = await pipelineOf([saying]).runRequest(message(), { deferDefault: true });
    expect(deferred).toHaveProperty("permit");
    expect("isDeferred" in deferred).toBe(!isConsent);
  });

  test("is not judged by a plugin of the connect stage, whose credentials are attached", async () => {
    const asked: string[] = [];
    const plugin = noting(asked, "tunnels");
    await pipelineOf([{ plugin, stages: ["connect"] }]).runRequest(message());
    expect(asked).toEqual(["tunnels credential"]);
  });
});

describe("an answer", () => {
  test("is judged by the last plugin first, until one refuses", async () => {
    const asked: string[] = [];
    const refusing = { onResponse: () => deny("no", denial) };
    const pipeline = pipelineOf([noting(asked, "a"), refusing, noting(asked, "b")]);
    expect(await pipeline.runResponse(message())).toEqual({
      kind: "denial",
      denial: { ...denial, plugin: "step-1" },
    });
    expect(asked).toEqual(["b response"]);
    const answering = { onResponse: () => respond("mine", reply) };
    expect(await pipelineOf([answering]).runResponse(message())).toEqual({ kind: "reply", reply });
    expect(await pipelineOf([{}]).runResponse(message())).toEqual({ kind: "pass" });
  });

  test("is judged by those who can refuse, and then told to those who cannot", async () => {
    const asked: string[] = [];
    const observing = { plugin: noting(asked, "observing"), onError: "observe" } as const;
    const parsing = { plugin: noting(asked, "parsing"), observes: true };
    const pipeline = pipelineOf([observing, noting(asked, "guarding"), parsing]);
    await pipeline.runResponse(message(), "guards");
    expect(asked.splice(0)).toEqual(["guarding response"]);
    await pipeline.runResponse(message(), "observers");
    expect(asked).toEqual(["parsing response", "observing response"]);
  });

  test("has frames that each plugin sees as the ones after it have left them", async () => {
    const seen: string[] = [];
    const marking = (mark: string, isAsync: boolean): Plugin => ({
      onFrame: (_context, { data, last }) => {
        seen.push(`${mark}:${data.toString()}:${last}`);
        const marked = replaceFrame("marked", Buffer.from(`${data.toString()}${mark}`));
        return isAsync ? Promise.resolve(marked) : marked;
      },
    });
    const pipeline = pipelineOf([marking("a", false), marking("b", true), marking("c", false)]);
    const verdict = await pipeline.runFrame(message(), frame("x", true));
    expect(verdict).toEqual({ kind: "pass", frame: { data: Buffer.from("xcba") } });
    expect(seen).toEqual(["c:x:true", "b:xc:true", "a:xcb:true"]);
  });

  test("has frames that nobody is shown once they are taken out", async () => {
    const asked: string[] = [];
    const removing = { onFrame: () => replaceFrame("removed", undefined) };
    const pipeline = pipelineOf([noting(asked, "a"), removing]);
    expect(await pipeline.runFrame(message(), frame("x"))).toEqual({
      kind: "pass",
      frame: { data: undefined },
    });
    expect(asked).toEqual([]);
  });

  test("has frames that a plugin that only observes cannot change or refuse", async () => {
    const observed = (said: Decision) => ({
      plugin: { onFrame: () => said },
      onError: "observe" as const,
    });
    const context = message();
    const pipeline = pipelineOf([
      observed(replaceFrame("changed", Buffer.from("y"))),
      observed(deny("no", denial)),
    ]);
    expect(await pipeline.runFrame(context, frame("x"))).toEqual({ kind: "pass" });
    expect(context.invocations.map(({ shadow }) => shadow)).toEqual([true, undefined]);
  });

  test("has frames whose verdict is there at once where nobody has to be waited for", () => {
    const pipeline = pipelineOf([{ onFrame: () => undefined }]);
    expect(pipeline.runFrame(message(), frame("x"))).toEqual({ kind: "pass" });
  });
});

describe("a Permit", () => {
  test("is for the destination of its flow and the addresses that plugins left", async () => {
    const first = AddressSet.parse(["10.0.0.0/8"]);
    const second = AddressSet.parse(["10.1.0.0/16"]);
    const limiting = (ranges: AddressSet): Plugin => ({
      onRequest: (context) => {
        context.limitAddresses(ranges);
        return allow("x");
      },
    });
    const context = message({ to: "svc.test:8080" });
    const observed = { plugin: limiting(first), onError: "observe" } as const;
    const verdict = await pipelineOf([limiting(first), observed, limiting(second)]).runRequest(
      context,
    );
    if (verdict.kind !== "permit") throw new Error("refused");
    const { destination, direction, flowId, addressLimits } = verdict.permit;
    expect(destination.authority).toBe("svc.test:8080");
    expect({ direction, flowId }).toEqual({ direction: "outbound", flowId: context.flow.id });
    expect(addressLimits).toEqual([first, second]);
  });

  test("for a host that skips the chain names no addresses", () => {
    const { flow } = message();
    expect(pipelineOf([]).permitSkipped(flow)).toMatchObject({
      flowId: flow.id,
      addressLimits: [],
    });
  });

  test("cannot be made by anybody else", () => {
    const make = (): Permit => Reflect.construct(Permit, [Symbol("issuing"), message().flow]);
    expect(make).toThrow("issued by a Pipeline");
  });
});

describe("what operators ask of a chain", () => {
  test("the first plugin that is not ready", () => {
    const pipeline = pipelineOf([{}, { ready: () => true }, { ready: () => "no keys" }]);
    expect(pipeline.notReady()).toEqual({ plugin: "step-2", reason: "no keys" });
    expect(pipelineOf([{ ready: () => true }]).notReady()).toBeUndefined();
  });

  test("what its plugins have observed", () => {
    const pipeline = pipelineOf([{}, { observations: () => ({ seen: 1 }) }]);
    expect(pipeline.observations()).toEqual([{ plugin: "step-1", observed: { seen: 1 } }]);
  });

  test("the links of all callers, where somebody judges callers", () => {
    const links = (...paths: string[]): Plugin => ({ callerLinks: () => paths });
    expect(pipelineOf([{}]).callerLinks()).toBeUndefined();
    const pipeline = pipelineOf([links("/a", "/b"), { callerLinks: () => undefined }, links("/b")]);
    expect(pipeline.callerLinks()).toEqual(["/a", "/b"]);
  });

  test("its steps, which nobody can change", () => {
    const pipeline = pipelineOf([{}]);
    expect(Object.isFrozen(pipeline.steps)).toBe(true);
  });
});
