/** The table of surfaces is whole, and what comes from it says the same as the file's keys. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { LoadedConfig } from "../../../src/config/load.ts";
import { applyPresets } from "../../../src/config/presets.ts";
import { configSchema } from "../../../src/config/schema.ts";
import {
  listenerSurfaces,
  surfaceAddresses,
  surfaceKey,
  surfaces,
} from "../../../src/config/surfaces.ts";
import { onFreePorts } from "../../../src/cli/own-file.ts";

const everySurface = {
  listener: {
    reverse_proxy_backend: "http://127.0.0.1:1",
    inbound_interception: "transparent",
    socks_proxy_addr: surfaces.socks.address,
  },
  pipeline: { inbound: { default: "deny" }, outbound: { default: "deny" } },
};

function configOf(file: object = {}) {
  return applyPresets(configSchema.parse({ ...everySurface, ...file }));
}

test("every address of the file is a surface", () => {
  const { listener, stats } = configSchema.shape;
  const others = /^ext_/;
  const keys = Object.keys(listener.unwrap().shape).filter(
    (key) => key.endsWith("_addr") && !others.test(key),
  );
  const table = Object.values(surfaces).map(({ key }) => key.join("."));
  expect(table.toSorted()).toEqual(
    [...keys.map((key) => `listener.${key}`), "stats.address"].toSorted(),
  );
  expect(stats).toBeDefined();
});

test("what the file leaves out has the address of the table", () => {
  expect(surfaceAddresses(configOf({ session: { enabled: true } }))).toEqual(
    Object.entries(surfaces).map(([name, { key, address }]) => ({ name, key, address })),
  );
});

test.each(Object.keys(surfaces) as (keyof typeof surfaces)[])(
  "an instance of our own has %s on a free port, or not at all",
  (name) => {
    const config = configOf({ session: { enabled: true } });
    const free = onFreePorts({ config, path: "f.yaml" } as LoadedConfig);
    const parsed = applyPresets(configSchema.parse(free));
    const found = surfaceAddresses(parsed).find((one) => one.name === name);
    expect(found?.address).toBe(name === "transparent" ? undefined : "127.0.0.1:0");
  },
);

test("the key of a surface is written as in the file", () => {
  expect(surfaceKey("transparent")).toBe("listener.transparent_proxy_addr");
  expect(surfaceKey("stats")).toBe("stats.address");
});

test("the chart refuses every one of them among extra settings", () => {
  const chart = new URL(
    "../../../deploy/helm/authbridge-proxy/templates/_checks.tpl",
    import.meta.url,
  );
  const text = readFileSync(chart, "utf8");
  for (const { key } of listenerSurfaces) expect(text).toContain(`"${key}"`);
});
