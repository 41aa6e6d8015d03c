import { pino } from "pino";
import { expect, test } from "vitest";
import { allow, type Plugin } from "../../../src/pipeline/plugin.ts";
import { Pipeline } from "../../../src/pipeline/pipeline.ts";
import { TunnelRegistry, type TunnelRules } from "../../../src/proxy/flow/tunnel-registry.ts";
import { message } from "../../support/plugin-bench.ts";

function pipelineOf(plugin: Plugin): Pipeline {
  const step = { name: "p", plugin, onError: "enforce", stages: ["connect"], body: {} } as const;
  const log = pino({ level: "silent" });
  return new Pipeline([step], { direction: "outbound", otherwise: "deny", log });
}

function rulesOf(plugin: Plugin): TunnelRules {
  return {
    inbound: pipelineOf({}),
    outbound: pipelineOf(plugin),
    skipHosts: { matches: () => false },
    callers: undefined,
  };
}

const inspecting: Plugin = {
  onRequest: (context) => {
    context.tunnelTerms.mustInspect = "a rule about paths";
    return allow("ok");
  },
};

test("a reload that wants to judge requests cuts opaque tunnels and leaves bridged ones", async () => {
  const cut: string[] = [];
  const tunnels = new TunnelRegistry();
  const { flow, headers, host, cancellation } = message({ to: "api.example.com:443" });
  const facts = {
    flow,
    stage: "connect",
    method: "CONNECT",
    path: "",
    host,
    headers,
    hasBody: false,
    cancellation,
  } as const;
  const judgedBy = { pipeline: pipelineOf(inspecting), epoch: tunnels.epoch };
  tunnels.add({ facts, judgedBy, cut: (reason) => void cut.push(`opaque ${reason}`) });
  tunnels.add({
    facts,
    judgedBy,
    isBridged: true,
    cut: (reason) => void cut.push(`bridged ${reason}`),
  });
  expect(await tunnels.recheck(rulesOf(inspecting))).toBe(1);
  expect(cut).toEqual(["opaque revoked"]);
  expect(await tunnels.recheck(rulesOf({ onRequest: () => allow("ok") }))).toBe(0);
});

test("callers are looked up only when a plugin judges them", () => {
  expect(pipelineOf(inspecting).callerLinks()).toBeUndefined();
  expect(pipelineOf({ callerLinks: () => undefined }).callerLinks()).toBeUndefined();
  expect(pipelineOf({ callerLinks: () => [] }).callerLinks()).toEqual([]);
  expect(pipelineOf({ callerLinks: () => ["/usr/bin/python3"] }).callerLinks()).toEqual([
    "/usr/bin/python3",
  ]);
});
