/**
 * `node bench/opa.ts`: what a decision of the opa plugin costs, one after another, interleaved in one run.
 *
 * The policy and the requests are those of examples/opa: two documents, some rules and data.
 */
import { readFileSync } from "node:fs";
import sdk from "@open-policy-agent/opa-wasm";
import { readBundle, unpackBundle } from "../src/opa/bundle.ts";
import { WasmEvaluator } from "../src/opa/wasm-evaluator.ts";
import { compilePolicy } from "../src/opa/wasm-policy.ts";
import { opa } from "../src/plugins/opa/plugin.ts";
import { StubOpa } from "../test/support/opa-server.ts";
import { message, PluginBench } from "../test/support/plugin-bench.ts";

const rounds = 5;
const perRound = 2_000;
const path = new URL("../examples/opa/bundle.tar.gz", import.meta.url).pathname;
const archive = readFileSync(path);
const document = "authbridge/outbound/request";
const headers = Object.fromEntries(
  Array.from({ length: 12 }, (_, index) => [`x-field-${index}`, "some value of a field"]),
);
const shape = { to: "weather.example.test:80", path: "/v1/now?city=Bonn", headers };
const input = JSON.stringify({
  direction: "outbound",
  method: "GET",
  path: "/v1/now",
  host: "weather.example.test",
  headers,
});

const policy = compilePolicy(readBundle(unpackBundle(archive)));
const bare = sdk.loadPolicySync(policy.module, { ...policy.memory }, {});
const encoder = new TextEncoder();
bare.setData(encoder.encode(policy.data).buffer);
const evaluator = await WasmEvaluator.start(policy, {
  timeoutMs: 5_000,
  onKilled: () => undefined,
});
const stub = await StubOpa.start();
stub.answer = () => ({ result: true });
const bench = new PluginBench();
const quiet = { decision_log: { enabled: false }, decision_timeout: "5s" };
const inProcess = bench.create(opa, { bundle_path: path, ...quiet });
const byServer = bench.create(opa, { server_url: stub.url, ...quiet });
for (const plugin of [inProcess, byServer]) await plugin.start?.(new AbortController().signal);

const contestants: Readonly<Record<string, () => unknown>> = {
  "the SDK alone, in the thread of the caller": () =>
    bare.evaluate(encoder.encode(input).buffer, document),
  "in the evaluator's thread": () => evaluator.evaluate(document, input),
  "the plugin: input, thread, verdict": () => inProcess.onRequest?.(message(shape)),
  "the plugin with a server on loopback that does nothing": () =>
    byServer.onRequest?.(message(shape)),
};

const seen = new Map<string, number[]>();
for (let round = 0; round <= rounds; round += 1) {
  for (const [name, decide] of Object.entries(contestants)) {
    const times: number[] = [];
    for (let at = 0; at < perRound; at += 1) {
      const startedAt = performance.now();
      await decide();
      times.push((performance.now() - startedAt) * 1_000);
    }
    // The first round warms up.
    if (round > 0) seen.set(name, [...(seen.get(name) ?? []), ...times]);
  }
}

for (const [name, times] of seen) {
  times.sort((a, b) => a - b);
  const at = (share: number): string => (times[Math.floor(times.length * share)] ?? 0).toFixed(1);
  console.log(`${name}: p50 ${at(0.5)} µs, p99 ${at(0.99)} µs`);
}
evaluator.close();
for (const plugin of [inProcess, byServer]) await plugin.close?.();
await stub.close();
