/** What a chain is warned of. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { planChain } from "../../../../src/app/chaining/plan.ts";
import { checkOptions } from "../../../../src/config/load.ts";
import { settings } from "../../../support/proxy.ts";

const directory = mkdtempSync(join(tmpdir(), "authbridge-plan-"));
afterAll(() => rmSync(directory, { recursive: true }));

const tried = "readiness_endpoints is empty: the chain is used without having been tried";
const plain = "http_proxy is not set: plain HTTP is dialled directly";

test.each([
  ["of the cluster's status, an empty parent beside another", [], [plain, tried]],
  ["endpoints of the cluster prove the chain", ["http://ready.test/"], [plain]],
])("%s", (_what, readinessEndpoints, warnings) => {
  const path = join(directory, "cluster.json");
  const resource = {
    apiVersion: "config.openshift.io/v1",
    kind: "Proxy",
    spec: { readinessEndpoints },
    status: { httpProxy: "", httpsProxy: "http://proxy.test:3128" },
  };
  writeFileSync(path, JSON.stringify(resource));
  const options = settings({ upstream_proxy: { from_openshift: { path } } });
  const loaded = checkOptions(options, "options", "");
  if (loaded.kind === "rejected") throw new Error(JSON.stringify(loaded.problems));
  expect(planChain(loaded.config, {}, [])?.warnings).toEqual(warnings);
});
