/** The end of a login, as plugins hear of it. */
import { expect, test } from "vitest";
import { endLogin, type LogoutServices } from "../../../src/app/logout.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { Metrics } from "../../../src/telemetry/metrics.ts";

test("a plugin that fails does not keep the others from dropping what they remember", async () => {
  const login = { issuer: "https://idp.test", subject: "alice" };
  const told: string[] = [];
  const reading = {
    readLogout: () => Promise.resolve({ kind: "ended", login }),
    onLogout: () => {
      throw new Error("not now");
    },
  };
  const dropping = { onLogout: () => told.push("dropped") };
  const steps = [reading, dropping].map((plugin, at) => ({ name: `p${at}`, plugin }));
  const metrics = new Metrics({ version: "0", generation: () => 1 });
  const services = {
    runtime: () => ({ inbound: { steps }, outbound: { steps: [] } }),
    log: createLogger("silent"),
    metrics,
    recheck: () => told.push("tunnels are judged again"),
  } as unknown as LogoutServices;
  expect(await endLogin("token", services)).toEqual({ kind: "accepted" });
  expect(told).toEqual(["dropped", "tunnels are judged again"]);
  metrics.close();
});
