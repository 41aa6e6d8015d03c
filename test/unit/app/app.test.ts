/** The process between its generations. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { rootCertificates } from "node:tls";
import { expect, test } from "vitest";
import { App } from "../../../src/app/app.ts";
import type { DataPlane, Refused } from "../../../src/app/data-plane.ts";
import { checkOptions, loadConfig, type LoadedConfig } from "../../../src/config/load.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { eventually } from "../../support/eventually.ts";
import { OtlpCollector } from "../../support/otlp.ts";
import { owner } from "../../support/owner.ts";
import { settings } from "../../support/proxy.ts";
import type { Settings } from "../../support/program.ts";

const own = owner();

function file(over: Settings, sha256: string): LoadedConfig {
  const checked = checkOptions(settings(over), "options", sha256);
  if (checked.kind === "rejected") throw new Error(JSON.stringify(checked.problems));
  return checked;
}

/** Threads of which one may refuse what this one has built. */
function plane(prepare: () => Refused | undefined): DataPlane {
  const activity = { connections: 0, flows: 0, tunnels: 0, upstreamConnections: 0, held: 0 };
  return {
    open: () => Promise.resolve({}),
    owns: () => undefined,
    notReady: () => undefined,
    note: () => undefined,
    activity: () => activity,
    prepare: () => Promise.resolve(prepare()),
    swap: () => undefined,
    recheck: () => Promise.resolve(0),
    kill: () => Promise.resolve(0),
    observations: () => [],
    budgets: () => [],
    levelChanged: () => undefined,
    close: () => Promise.resolve(),
  };
}

test("reports reach the collector after a reload that a thread refuses, and after one that all take", async () => {
  const collector = await own(OtlpCollector.start());
  const telemetry = { otlp: { endpoint: collector.url, metrics_interval: "100ms" } };
  let refusal: Refused | undefined;
  const app = await own(
    App.start({
      file: "",
      given: { load: () => Promise.resolve(file({ telemetry }, "1")), opens: () => false },
      lenient: false,
      env: {},
      version: "0",
      log: createLogger("silent"),
      threads: () => plane(() => refusal),
    }),
  );
  const isReporting = (): Promise<boolean> => {
    // One may have been on its way.
    const enough = collector.reports + 2;
    return eventually(() => collector.reports >= enough, 5_000);
  };
  await isReporting();
  refusal = "not in this one";
  expect(await app.reload(() => Promise.resolve(file({ telemetry }, "2")))).toBe(refusal);
  await isReporting();
  refusal = undefined;
  expect(await app.reload(() => Promise.resolve(file({ telemetry }, "3")))).toBe(undefined);
  await isReporting();
});

/** A file that names another one, and a process that serves it. */
async function followed({
  starting,
  preparing,
}: {
  readonly starting?: (file: string) => void;
  readonly preparing?: (ca: string) => void;
}): Promise<{ readonly file: string; readonly app: App; generations(this: void): number }> {
  const directory = mkdtempSync(join(tmpdir(), "authbridge-app-"));
  await own({ close: () => rmSync(directory, { recursive: true }) });
  // A watch of one directory would tell of both.
  const [file, ca] = [join(directory, "file.yaml"), join(directory, "trust", "ca.crt")];
  mkdirSync(dirname(ca));
  writeFileSync(ca, rootCertificates[0] ?? "");
  writeFileSync(file, textOf(ca));
  let prepared = 0;
  const app = await own(
    App.start({
      file,
      lenient: false,
      env: {},
      version: "0",
      log: createLogger("silent"),
      threads: () => {
        starting?.(file);
        return plane(() => {
          prepared += 1;
          if (prepared === 1) preparing?.(ca);
          return undefined;
        });
      },
    }),
  );
  return { file, app, generations: () => 1 + prepared };
}

function textOf(ca: string): string {
  return JSON.stringify(
    settings({ upstream_proxy: { trusted_ca: ca }, reload: { debounce: "100ms" } }),
  );
}

test("a file that is written while the process starts is served afterwards", async () => {
  const { generations } = await followed({
    starting: (file) => writeFileSync(file, `\n# newer\n`, { flag: "a" }),
  });
  await eventually(() => generations() === 2);
});

test("what a file names and is written while a reload goes on is read afterwards", async () => {
  const { file, app, generations } = await followed({
    preparing: (ca) => writeFileSync(ca, rootCertificates[1] ?? ""),
  });
  // Behind the first look at the file, which finds nothing new.
  await app.reload(() => loadConfig(file));
  writeFileSync(file, `\n# newer\n`, { flag: "a" });
  await eventually(() => generations() === 3);
});

test("the bundle of what agents trust is that of what serves, also after a reload that a thread refuses", async () => {
  const directory = mkdtempSync(join(tmpdir(), "authbridge-bundle-"));
  await own({ close: () => rmSync(directory, { recursive: true }) });
  const bundle = join(directory, "bundle.crt");
  const [one = "", other = ""] = rootCertificates;
  const options = (certificate: string, name: string): LoadedConfig => {
    const ca = join(directory, name);
    writeFileSync(ca, certificate);
    const chain = { trusted_ca: ca, trust_bundle_file: bundle, system_roots: false };
    return file({ upstream_proxy: chain }, name);
  };
  const app = await own(
    App.start({
      file: "",
      given: { load: () => Promise.resolve(options(one, "one")), opens: () => false },
      lenient: false,
      env: {},
      version: "0",
      log: createLogger("silent"),
      threads: () => plane(() => "not in this one"),
    }),
  );
  expect(await app.reload(() => Promise.resolve(options(other, "other")))).toBe("not in this one");
  expect(readFileSync(bundle, "utf8").trim()).toBe(one.trim());
});
