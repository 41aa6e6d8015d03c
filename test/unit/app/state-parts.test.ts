/** Stores that plugins name by their address. */
import { expect, test } from "vitest";
import { makeStateParts } from "../../../src/app/state-parts.ts";
import { checkOptions } from "../../../src/config/load.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { Metrics } from "../../../src/telemetry/metrics.ts";
import { freePort } from "../../support/free-port.ts";
import { settings } from "../../support/proxy.ts";

test("a store that is away counts as long as somebody has it", async () => {
  const loaded = checkOptions(settings({}), "options", "");
  if (loaded.kind === "rejected") throw new Error(JSON.stringify(loaded.problems));
  const metrics = new Metrics({ version: "0", generation: () => 1 });
  const parts = await makeStateParts(loaded.config, { log: createLogger("silent"), metrics });
  const isUp = (): unknown => metrics.figures()["authbridge_state_up"];
  const store = parts.at(`redis://127.0.0.1:${await freePort()}`);
  await store.open();
  expect(isUp()).toBe(0);
  await store.close();
  expect(isUp()).toBe(1);
  await parts.close();
  metrics.close();
});
