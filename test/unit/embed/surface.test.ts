/** What programs may rely on: the names that the module exports and their types. */
import { expect, expectTypeOf, test } from "vitest";
import * as surface from "../../../src/embed/proxy.ts";
import type {
  CloseOptions,
  EmbeddedProxy,
  EventReader,
  OptionProblem,
  PipelineStep,
  ProxyAddress,
  ProxyAddresses,
  ProxyEvent,
  ProxyLogger,
  ProxyOptions,
} from "../../../src/embed/proxy.ts";
import { definePlugin } from "../../../src/pipeline/plugin.ts";
import type { Logger } from "../../../src/telemetry/log.ts";
import { z } from "zod";

test("the values that are exported", () => {
  expect(Object.keys(surface)).toEqual(["OptionsError", "createProxy"]);
});

test("the members of a proxy", () => {
  const proxy = surface.createProxy();
  expectTypeOf(surface.createProxy).parameter(0).toEqualTypeOf<ProxyOptions | undefined>();
  expectTypeOf(proxy).toEqualTypeOf<EmbeddedProxy>();
  expectTypeOf<Exclude<keyof EmbeddedProxy, symbol>>().toEqualTypeOf<
    "listen" | "address" | "events" | "reload" | "close"
  >();
  expectTypeOf<EmbeddedProxy>().toExtend<AsyncDisposable>();
  expectTypeOf<EmbeddedProxy["listen"]>().toEqualTypeOf<() => Promise<ProxyAddresses>>();
  expectTypeOf<EmbeddedProxy["reload"]>().toEqualTypeOf<(options: ProxyOptions) => Promise<void>>();
  expectTypeOf<EmbeddedProxy["close"]>().toEqualTypeOf<(options?: CloseOptions) => Promise<void>>();
  expectTypeOf<EmbeddedProxy["address"]>().toEqualTypeOf<ProxyAddresses>();
  expectTypeOf<ProxyAddresses["forward"]>().toEqualTypeOf<ProxyAddress | undefined>();
  expectTypeOf(proxy.events).toExtend<AsyncIterable<ProxyEvent> & { readonly dropped: number }>();
  expectTypeOf<
    ReturnType<(typeof proxy.events)[typeof Symbol.asyncIterator]>
  >().toEqualTypeOf<EventReader>();
  expectTypeOf<ProxyEvent["phase"]>().toEqualTypeOf<"request" | "response" | "denied">();
  expectTypeOf<surface.OptionsError["problems"]>().toEqualTypeOf<readonly OptionProblem[]>();
  expect(proxy.address).toEqual({});
});

test("options have the keys of the file, and no others", () => {
  expectTypeOf<NonNullable<ProxyOptions["limits"]>["max_tunnels"]>().toEqualTypeOf<
    number | undefined
  >();
  // @ts-expect-error: no such key
  const unknown: ProxyOptions = { limits: { max_tunnel: 1 } };
  // @ts-expect-error: one thread
  const threads: ProxyOptions = { workers: 2 };
  expect([unknown, threads]).toHaveLength(2);
});

test("plugins and loggers are taken as they are made", () => {
  const configured = definePlugin({
    name: "configured",
    description: "Has settings",
    config: z.strictObject({ greeting: z.string() }),
    create: () => ({}),
  });
  const plain = definePlugin({ name: "plain", description: "Has none", create: () => ({}) });
  expectTypeOf(configured).toExtend<PipelineStep>();
  expectTypeOf({ plugin: configured, config: { greeting: "hi" } }).toExtend<PipelineStep>();
  expectTypeOf(plain).toExtend<PipelineStep>();
  expectTypeOf<"egress-policy">().toExtend<PipelineStep>();
  expectTypeOf<Logger>().toExtend<ProxyLogger>();
  expectTypeOf(console).toExtend<ProxyLogger>();
});
