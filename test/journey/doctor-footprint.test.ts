/** What the doctor leaves behind: nothing, beside a proxy that serves the same file as well. */
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { beforeEach, expect, test } from "vitest";
import { get } from "../support/http-client.ts";
import { TcpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runProgram, runWith, type Settings } from "../support/program.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let directory: string;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "authbridge-footprint-"));
  await own({ close: () => rmSync(directory, { recursive: true, force: true }) });
});

/** Everything that a proxy writes. */
function file(more: Settings = {}): Settings {
  return settings({
    session: { persist: { path: join(directory, "events") } },
    state: { store: "file", path: join(directory, "state") },
    audit: { path: join(directory, "audit") },
    kill_switch: { file: join(directory, "kills") },
    upstream_proxy: { trust_bundle_file: join(directory, "bundle.crt") },
    ...more,
  });
}

test.each([
  ["by itself", []],
  ["with a command", ["--", "true"]],
])(
  "%s it writes into no file of the configuration, and tells no collector",
  async (_what, args) => {
    const collector = await own(TcpOrigin.start(() => undefined));
    const telemetry = { otlp: { endpoint: `http://127.0.0.1:${collector.port}` } };
    // An authority of which no agent has heard must not be in the bundle, and what is stopped is none of its business.
    const config = file({ telemetry, tls_bridge: { mode: "enabled", ca: "ephemeral" } });
    writeFileSync(join(directory, "kills"), "all\n");
    const { stdout } = await runWith("doctor", config, { args });
    expect(stdout).toMatch(/^pass {2}connect /m);
    expect(stdout).toMatch(/^pass {2}bridge /m);
    expect(readdirSync(directory)).toEqual(["kills"]);
    expect(collector.connections).toHaveLength(0);
  },
);

test("beside a proxy that writes them, whose decision log stays whole", async () => {
  const config = file();
  const proxy = await own(ProxyProcess.start(config));
  for (let visits = 0; visits < 2; visits += 1) {
    await get(proxy.forward, "http://nowhere.invalid/");
    const { code, stdout } = await runWith("doctor", config);
    expect(stdout).toMatch(/^pass {2}start /m);
    expect(code, stdout).toBe(0);
  }
  await proxy.close();
  const verified = await runProgram(["verify-audit", join(directory, "audit")]);
  expect(verified.stdout).toMatch(/^records: 2$/m);
  expect(verified.code, verified.stdout).toBe(0);
});
