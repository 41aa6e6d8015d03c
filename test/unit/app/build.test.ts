/** One generation, from the file to what serves it. */
import { expect, test } from "vitest";
import { buildRuntime } from "../../../src/app/build.ts";
import { CarriedState } from "../../../src/app/carried-state.ts";
import { checkOptions } from "../../../src/config/load.ts";
import type { AnyPluginDefinition } from "../../../src/pipeline/plugin.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { Metrics } from "../../../src/telemetry/metrics.ts";
import { OwnListeners } from "../../../src/upstream/own-listeners.ts";
import { settings } from "../../support/proxy.ts";

test("every plugin of a generation that cannot start is closed, also one whose start has failed", async () => {
  const happened: string[] = [];
  const plugin = (name: string, starts = true): AnyPluginDefinition => ({
    name,
    description: name,
    create: () => ({
      start: () => {
        happened.push(`start ${name}`);
        return starts ? Promise.resolve() : Promise.reject(new Error("not now"));
      },
      close: () => void happened.push(`close ${name}`),
    }),
  });
  const plugins = [plugin("one"), plugin("two", false), plugin("three")];
  const outbound = { plugins: plugins.map(({ name }) => name) };
  const loaded = checkOptions(settings({ pipeline: { outbound } }), "options", "");
  if (loaded.kind === "rejected") throw new Error(JSON.stringify(loaded.problems));
  const metrics = new Metrics({ version: "0", generation: () => 1 });
  const built = await buildRuntime(loaded.config, 1, {
    log: createLogger("silent"),
    env: {},
    metrics,
    ownListeners: new OwnListeners(),
    carried: new CarriedState(),
    definitions: plugins,
  });
  metrics.close();
  expect(built).toMatchObject({
    kind: "failed",
    problems: [{ message: 'plugin "two" failed to start: not now' }],
  });
  expect(happened).toEqual(["start one", "start two", "close three", "close two", "close one"]);
});
