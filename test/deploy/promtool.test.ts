/** What Prometheus' own tool says of a scrape and of the alert rules. */
import { spawnSync } from "node:child_process";
import { readdirSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { get } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { inbound, merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const program = process.env["AUTHBRIDGE_PROMTOOL"] ?? "promtool";
const isThere = spawnSync(program, ["--version"]).status === 0;
const rules = new URL("../../deploy/prometheus/", import.meta.url);

function promtool(args: readonly string[], input?: string): { status: unknown; said: string } {
  const { status, stdout, stderr } = spawnSync(program, args, { input, encoding: "utf8" });
  return { status, said: stdout + stderr };
}

describe.skipIf(!isThere)("promtool", () => {
  test("finds nothing to say of a scrape", async () => {
    const origin = await own(HttpOrigin.launch());
    const proxy = await own(
      ProxyProcess.start(
        merge(
          settings({ listener: { reverse_proxy_backend: origin.url } }),
          merge(
            inbound({
              name: "jwt-validation",
              config: { issuer: "http://127.0.0.1:1", audience: "a" },
            }),
            outbound({ name: "egress-policy", config: { allow: ["127.0.0.1"] } }),
          ),
        ),
      ),
    );
    await get(proxy.reverse, "/healthz");
    await get(proxy.reverse, "/refused");
    await get(proxy.forward, `${origin.url}/`);
    const { text } = await proxy.stats("/metrics");
    expect(text).toContain("authbridge_denials_total{");
    expect(promtool(["check", "metrics"], text)).toEqual({ status: 0, said: "" });
  });

  test.each(readdirSync(rules))("finds no fault in the rules of %s", (name) => {
    const { status, said } = promtool(["check", "rules", new URL(name, rules).pathname]);
    expect(said).toMatch(/SUCCESS: \d+ rules found/);
    expect(status).toBe(0);
  });
});
