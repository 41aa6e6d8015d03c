/** What a platform lays over the chart: labels, volumes, containers, security contexts, rollout, scaling, alerts. */
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { chart, example, hasHelm, helm, render, withSets } from "../support/helm.ts";
import { containersOf, type Manifest, ofKind, one } from "../support/manifests.ts";

const podOf = (manifests: readonly Manifest[]) => {
  const spec = one(manifests, "Deployment", "t-authbridge-proxy").spec?.template?.spec;
  if (spec === undefined) throw new Error("no pod");
  return spec;
};
const proxyOf = (manifests: readonly Manifest[]) => podOf(manifests).containers?.[0];

describe.skipIf(!hasHelm)("labels and annotations of the platform", () => {
  test.each(["gateway", "gateway-full", "shared", "sidecar", "cooperative"])(
    "%s: are on every object",
    (name) => {
      const common = ["--set", "commonLabels.team=agents,commonAnnotations.owner=platform"];
      const monitored = "metrics.enabled=true,metrics.prometheusRule.enabled=true";
      const boards = "metrics.dashboard.enabled=true,serviceAccount.annotations.own=kept";
      const manifests = example(name, ...common, "--set", `${monitored},${boards}`);
      expect(manifests.length).toBeGreaterThan(4);
      for (const { kind, metadata } of manifests) {
        expect(metadata.annotations, `${kind} ${metadata.name}`).toMatchObject({
          owner: "platform",
        });
        // A pod of the test has the agent's labels and no others: policies select by them.
        if (kind !== "Pod")
          expect(metadata.labels, metadata.name).toMatchObject({ team: "agents" });
      }
      expect(one(manifests, "ServiceAccount").metadata.annotations).toEqual({
        own: "kept",
        owner: "platform",
      });
    },
  );
});

describe.skipIf(!hasHelm)("a pod of the platform", () => {
  test("has what was laid over it", () => {
    const manifests = example("gateway-platform");
    const { metadata, spec } = one(manifests, "Deployment");
    expect(metadata.annotations).toMatchObject({ "example.org/ticket": "12" });
    expect(spec).toMatchObject({
      minReadySeconds: 3,
      strategy: { type: "RollingUpdate", rollingUpdate: { maxUnavailable: 1 } },
    });
    const pod = podOf(manifests);
    expect(pod).toMatchObject({
      runtimeClassName: "gvisor",
      dnsPolicy: "None",
      dnsConfig: { nameservers: ["10.96.0.10"] },
      hostAliases: [{ ip: "10.1.1.1" }],
      securityContext: { fsGroup: 1337, runAsUser: 1337, supplementalGroups: [5000] },
    });
    expect(containersOf(pod).map(({ name }) => name)).toEqual(["wait", "authbridge-proxy"]);
    const proxy = proxyOf(manifests);
    expect(proxy?.volumeMounts).toContainEqual({
      name: "svid",
      mountPath: "/run/spiffe",
      readOnly: true,
    });
    expect(pod.volumes?.map(({ name }) => name)).toContain("svid");
    expect(proxy).toMatchObject({ livenessProbe: { periodSeconds: 20, timeoutSeconds: 3 } });
    expect(proxy).not.toHaveProperty("startupProbe");
  });

  test("has containers of the platform behind the proxy", () => {
    const extra = '[{"name":"logs","image":"a:1","args":["-f"]}]';
    const manifests = render("--set-json", `gateway.extraContainers=${extra}`);
    expect(podOf(manifests).containers?.map(({ name }) => name)).toEqual([
      "authbridge-proxy",
      "logs",
    ]);
  });

  test("leaves out what is null, for platforms that decide it", () => {
    const own = ["readOnlyRootFilesystem", "capabilities"].map(
      (key) => `proxy.securityContext.${key}=null`,
    );
    const manifests = withSets(
      ...own,
      "gateway.podSecurityContext.seccompProfile=null,proxy.uid=null",
    );
    expect(proxyOf(manifests)?.securityContext).toEqual({
      allowPrivilegeEscalation: false,
      runAsNonRoot: true,
    });
    expect(podOf(manifests).securityContext).toEqual({ runAsNonRoot: true });
  });

  test("of a sidecar has the proxy's volumes, probes and security context, too", () => {
    const manifests = render(
      "--set",
      "topology=sidecar,proxy.livenessProbe=null",
      "--set-json",
      'proxy.extraVolumes=[{"name":"svid","emptyDir":{}}]',
      "--set-json",
      'proxy.extraVolumeMounts=[{"name":"svid","mountPath":"/svid"}]',
    );
    const spec = one(manifests, "Deployment", "-agent-example").spec?.template?.spec;
    const proxy = spec?.initContainers?.find(({ name }) => name === "authbridge-proxy");
    expect(proxy).not.toHaveProperty("livenessProbe");
    expect(proxy?.volumeMounts).toContainEqual({ name: "svid", mountPath: "/svid" });
    expect(spec?.volumes).toContainEqual({ name: "svid", emptyDir: {} });
  });
});

describe.skipIf(!hasHelm)("scaling", () => {
  test("goes by connections, where the values say so", () => {
    const manifests = example("gateway-platform");
    expect(one(manifests, "HorizontalPodAutoscaler").spec).toMatchObject({
      metrics: [
        {
          type: "Pods",
          pods: {
            metric: { name: "authbridge_client_connections" },
            target: { type: "AverageValue", averageValue: "2000" },
          },
        },
      ],
      behavior: { scaleDown: { stabilizationWindowSeconds: 600 } },
    });
    const metrics = readFileSync("docs/metrics.md", "utf8");
    expect(metrics).toContain("`authbridge_client_connections`");
  });

  test("goes by processor time by default, and by both", () => {
    const types = (...sets: string[]): unknown[] => {
      const { spec } = one(
        withSets("gateway.autoscaling.enabled=true", ...sets),
        "HorizontalPodAutoscaler",
      ) as unknown as { spec: { metrics: { type: string }[] } };
      return spec.metrics.map(({ type }) => type);
    };
    expect(types()).toEqual(["Resource"]);
    expect(types("gateway.autoscaling.targetConnections=5,metrics.enabled=true")).toEqual([
      "Resource",
      "Pods",
    ]);
  });

  test("keeps a share of the pods", () => {
    const { spec } = one(example("gateway-platform"), "PodDisruptionBudget");
    expect(spec).toMatchObject({ minAvailable: "50%" });
    expect(spec).not.toHaveProperty("maxUnavailable");
  });

  test.each([
    ["Deployment", "strategy"],
    ["StatefulSet", "updateStrategy"],
  ])("rolls a %s as %s says", (kind, key) => {
    const strategy = withSets(
      `gateway.kind=${kind}`,
      "gateway.updateStrategy.type=RollingUpdate",
      "gateway.updateStrategy.rollingUpdate.maxUnavailable=2",
    );
    expect(one(strategy, kind).spec).toMatchObject({
      [key]: { rollingUpdate: { maxUnavailable: 2 } },
    });
  });
});

describe.skipIf(!hasHelm)("alerts", () => {
  const shipped = (
    parse(readFileSync("deploy/prometheus/authbridge-alerts.yaml", "utf8")) as {
      groups: { name: string; rules: { alert: string }[] }[];
    }
  ).groups;
  const on = "metrics.enabled=true,metrics.prometheusRule.enabled=true";

  test("of the repository are the chart's, word for word", () => {
    const spec = one(withSets(on), "PrometheusRule").spec as unknown;
    expect(spec).toEqual({ groups: shipped });
  });

  test("are left out and added by name", () => {
    const { metadata, spec } = one(example("gateway-platform"), "PrometheusRule") as unknown as {
      metadata: Manifest["metadata"];
      spec: { groups: typeof shipped };
    };
    const names = spec.groups.flatMap(({ rules }) => rules.map(({ alert }) => alert));
    const all = shipped.flatMap(({ rules }) => rules.map(({ alert }) => alert));
    expect(names).toEqual([
      ...all.filter((name) => name !== "AuthbridgeRefusesMuch"),
      "AgentsQuiet",
    ]);
    expect(metadata.labels).toMatchObject({ release: "prometheus" });
  });

  test("are rendered where they are asked for, and nowhere else", () => {
    expect(ofKind(withSets("metrics.enabled=true"), "PrometheusRule")).toEqual([]);
  });
});

describe.skipIf(!hasHelm)("what is refused, and with which words", () => {
  test.each([
    ["metrics.prometheusRule.enabled=true", /metrics\.enabled: true/],
    [
      "metrics.enabled=true,metrics.prometheusRule.enabled=true,metrics.prometheusRule.disabled[0]=Nonsense",
      /no alert Nonsense; there are AuthbridgeNotReady/,
    ],
    [
      "commonLabels.app\\.kubernetes\\.io/name=else",
      /commonLabels: app.kubernetes.io\/name is the chart's/,
    ],
    ["gateway.podLabels.app\\.kubernetes\\.io/component=else", /gateway\.podLabels: app/],
    ["proxy.securityContext.runAsUser=5", /proxy\.securityContext\.runAsUser.*set proxy\.uid/],
    ["gateway.podSecurityContext.fsGroup=5", /gateway\.podSecurityContext\.fsGroup.*proxy\.uid/],
    [
      "gateway.autoscaling.enabled=true,gateway.autoscaling.targetCPUUtilizationPercentage=0",
      /something to scale by/,
    ],
    [
      "gateway.autoscaling.enabled=true,gateway.autoscaling.targetConnections=9",
      /targetConnections needs metrics\.enabled/,
    ],
    ["gateway.updateStrategy.type=OnDelete", /for a StatefulSet/],
    ["gateway.kind=StatefulSet,gateway.updateStrategy.type=Recreate", /for a Deployment/],
    ["gateway.updateStrategy.type=Sometimes", /updateStrategy/],
    ["gateway.dnsPolicy=None", /gateway\.dnsConfig/],
    ["proxy.extraVolumes[0].name=authbridge-ca", /chart's own volumes/],
    ["proxy.extraVolumeMounts[0].name=a", /mountPath/],
    [
      "gateway.extraContainers[0].name=authbridge-proxy,gateway.extraContainers[0].image=a",
      /proxy's own container/,
    ],
    ["gateway.podDisruptionBudget.minAvailable=half", /minAvailable/],
  ])("%s", (sets, words) => {
    const { status, err } = helm(chart, "--set", sets);
    expect(status).not.toBe(0);
    expect(err).toMatch(words);
  });
});
