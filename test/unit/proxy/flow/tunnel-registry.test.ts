import { describe, expect, test, vi } from "vitest";
import { allow, deny } from "../../../../src/pipeline/decision.ts";
import type { Pipeline } from "../../../../src/pipeline/pipeline.ts";
import type { Plugin } from "../../../../src/pipeline/plugin.ts";
import {
  type OpenTunnel,
  TunnelRegistry,
  type TunnelRules,
} from "../../../../src/proxy/flow/tunnel-registry.ts";
import { pipelineOf } from "../../../support/pipeline-of.ts";
import { message, type MessageShape } from "../../../support/plugin-bench.ts";

const allowing = pipelineOf([{ onRequest: () => allow("x") }]);
const denying = pipelineOf([
  { onRequest: () => deny("x", { code: "policy.forbidden", message: "no" }) },
]);

function rules(outbound: Pipeline, over: Partial<TunnelRules> = {}): TunnelRules {
  return {
    inbound: allowing,
    outbound,
    skipHosts: { matches: () => false },
    callers: undefined,
    ...over,
  };
}

/** A tunnel that `pipeline` let through, with a `cut` that can be asked. */
function tunnel(
  registry: TunnelRegistry,
  pipeline: Pipeline,
  { isBridged, readsMessages, ...shape }: MessageShape & Partial<OpenTunnel> = {},
) {
  const cut = vi.fn();
  const open = {
    facts: message(shape),
    judgedBy: { pipeline, epoch: registry.epoch },
    ...(isBridged === undefined ? {} : { isBridged }),
    ...(readsMessages === undefined ? {} : { readsMessages }),
    cut,
  };
  return { ...open, slot: registry.add(open) };
}

test("slots are limited from before the dial, and freed", () => {
  const registry = new TunnelRegistry();
  expect([registry.take(2), registry.take(2), registry.take(2)]).toEqual([true, true, false]);
  registry.leave();
  expect(registry.take(2)).toBe(true);
});

describe("new rules", () => {
  test("cut the tunnels that they refuse, and count them", async () => {
    const registry = new TunnelRegistry();
    const [kept, refused] = [
      tunnel(registry, allowing, { direction: "inbound" }),
      tunnel(registry, allowing),
    ];
    expect(await registry.recheck(rules(denying))).toBe(1);
    expect(kept.cut).not.toHaveBeenCalled();
    expect(refused.cut).toHaveBeenCalledExactlyOnceWith("revoked");
  });

  test("are not asked about a tunnel that has closed", async () => {
    const registry = new TunnelRegistry();
    const closed = tunnel(registry, allowing);
    registry.delete(closed.slot);
    expect(await registry.recheck(rules(denying))).toBe(0);
    expect([closed.cut.mock.calls.length, registry.size]).toEqual([0, 0]);
  });

  test("whose check fails cut the tunnel", async () => {
    const registry = new TunnelRegistry();
    const open = tunnel(registry, allowing);
    const failing = pipelineOf([{ onRequest: () => Promise.reject(new Error("down")) }]);
    expect(await registry.recheck(rules(failing))).toBe(1);
    expect(open.cut).toHaveBeenCalledOnce();
  });

  test("judge the fields that the client sent, not what a plugin made of them", async () => {
    const registry = new TunnelRegistry();
    const open = tunnel(registry, allowing, { headers: { "x-agent": "a" } });
    const seen: (string | undefined)[] = [];
    const changing: Plugin = {
      onRequest: ({ headers }) => {
        seen.push(headers.get("x-agent"));
        headers.set("x-agent", "changed");
        return allow("x");
      },
    };
    await registry.recheck(rules(pipelineOf([changing])));
    await registry.recheck(rules(pipelineOf([changing])));
    expect(seen).toEqual(["a", "a"]);
    expect(open.cut).not.toHaveBeenCalled();
  });

  test.each<[what: string, over: Partial<TunnelRules>, count: number]>([
    ["keep a host that they skip", { skipHosts: { matches: () => true } }, 0],
    ["cut a caller that they do not know", { callers: { knows: () => false } }, 1],
    [
      "cut a caller that they do not know, also of a skipped host",
      { callers: { knows: () => false }, skipHosts: { matches: () => true } },
      1,
    ],
  ])("%s", async (_what, over, count) => {
    const registry = new TunnelRegistry();
    tunnel(registry, allowing);
    const outbound = count === 0 ? denying : allowing;
    expect(await registry.recheck(rules(outbound, over))).toBe(count);
  });

  test("cut a connection whose messages only the pipeline before them reads", async () => {
    const registry = new TunnelRegistry();
    tunnel(registry, allowing, { readsMessages: true, upgrade: "websocket" });
    expect(await registry.recheck(rules(allowing))).toBe(0);
    expect(await registry.recheck(rules(pipelineOf([{ onRequest: () => allow("x") }])))).toBe(1);
  });

  test("cut an upgraded connection whose messages they want to read and nobody reads", async () => {
    const registry = new TunnelRegistry();
    tunnel(registry, allowing, { upgrade: "websocket" });
    const reading = pipelineOf([{ onRequest: () => allow("x"), onMessage: () => undefined }]);
    expect(await registry.recheck(rules(reading))).toBe(1);
  });

  test("may leave a bridged tunnel open that no step consents to: its requests are judged", async () => {
    const registry = new TunnelRegistry();
    const silent = pipelineOf([{ onRequest: () => undefined }]);
    const bridged = tunnel(registry, allowing, { isBridged: true });
    const spliced = tunnel(registry, allowing);
    expect(await registry.recheck(rules(silent))).toBe(1);
    expect([bridged.cut, spliced.cut].map(({ mock }) => mock.calls.length)).toEqual([0, 1]);
  });
});

test("a tunnel that was judged by rules before the present ones is judged when it is added", async () => {
  const registry = new TunnelRegistry();
  const { epoch } = registry;
  await registry.recheck(rules(denying));
  const cut = vi.fn();
  registry.add({ facts: message(), judgedBy: { pipeline: allowing, epoch }, cut });
  await vi.waitFor(() => expect(cut).toHaveBeenCalledExactlyOnceWith("revoked"));
});

test("a shutdown cuts all of them", () => {
  const registry = new TunnelRegistry();
  const open = [tunnel(registry, allowing), tunnel(registry, allowing)];
  registry.cutAll();
  for (const { cut } of open) expect(cut).toHaveBeenCalledExactlyOnceWith("draining");
});
