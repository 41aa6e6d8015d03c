import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { Metrics } from "../../../src/telemetry/metrics.ts";

const root = new URL("../../../", import.meta.url);
const read = (path: string): string => readFileSync(new URL(path, root), "utf8");

interface Rule {
  readonly alert: string;
  readonly expr: string;
  readonly annotations: { readonly summary: string; readonly description: string };
}

/** Metrics and labels that an expression names. */
function namesIn(expression: string): string[] {
  return [...expression.matchAll(/\b(?:authbridge|nodejs|process)_\w+/g)].map(([name]) => name);
}

async function known(): Promise<Set<string>> {
  const metrics = new Metrics({ version: "1", generation: () => 1 });
  const text = await metrics.render();
  metrics.close();
  const names = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].flatMap(([, name = "", type]) =>
    type === "histogram" ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name],
  );
  return new Set(names);
}

test("the dashboard asks for metrics that exist, and each panel once", async () => {
  const dashboard = JSON.parse(read("deploy/grafana/authbridge-proxy.json")) as {
    readonly panels: readonly {
      readonly title: string;
      readonly targets: readonly { readonly expr: string }[];
    }[];
  };
  const names = await known();
  const expressions = dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr));
  expect(expressions.length).toBeGreaterThan(15);
  expect(expressions.flatMap(namesIn).filter((name) => !names.has(name))).toEqual([]);
  const titles = dashboard.panels.map(({ title }) => title);
  expect(new Set(titles).size).toBe(titles.length);
});

test("alerts ask for metrics that exist and say what to do", async () => {
  const names = await known();
  const { groups } = parse(read("deploy/prometheus/authbridge-alerts.yaml")) as {
    readonly groups: readonly { readonly rules: readonly Rule[] }[];
  };
  const rules = groups.flatMap((group) => group.rules);
  expect(rules.length).toBeGreaterThan(5);
  for (const { alert, expr, annotations } of rules) {
    expect(namesIn(expr).length, alert).toBeGreaterThan(0);
    expect(
      namesIn(expr).filter((name) => !names.has(name)),
      alert,
    ).toEqual([]);
    expect(annotations.summary.length * annotations.description.length, alert).toBeGreaterThan(0);
  }
});
