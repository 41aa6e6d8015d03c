/** The chart, rendered by helm itself: what runs, what may speak to whom, and what is refused in words. */
import { execFileSync, spawnSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { clientEnvironment } from "../../src/cli/client-environment.ts";
import {
  containersOf,
  environmentOf,
  isOnPath,
  type Manifest,
  manifestsOf,
  ofKind,
  one,
  type PodSpec,
  podSpecs,
} from "../support/manifests.ts";
import { chart, example, hasHelm, helm, render, withSets } from "../support/helm.ts";
import { PodFiles } from "../support/proxy-file.ts";

/** The command of the package kubernetes-validate, which brings the schemas of Kubernetes along. */
const validator = process.env["KUBERNETES_VALIDATE"] ?? "kubernetes-validate";
const hasValidator = isOnPath(validator, "--version");
/** Directories with the definitions of custom resources that the chart may render. */
const customResources = process.env["CUSTOM_RESOURCES"] ?? "";
const examples = readdirSync(join(chart, "ci"));
const scratch = mkdtempSync(join(tmpdir(), "authbridge-helm-"));
let pod: PodFiles;

beforeAll(async () => {
  pod = await PodFiles.make();
});
afterAll(() => {
  pod.close();
  rmSync(scratch, { recursive: true, force: true });
});

const agentLabels = { "authbridge-proxy/agent": "t-authbridge-proxy" };

/** The proxy's file of a rendering. */
function fileOf(manifests: readonly Manifest[]): Readonly<Record<string, unknown>> {
  const text = one(manifests, "ConfigMap", "t-authbridge-proxy").data?.["config.yaml"] ?? "";
  return parse(text) as Record<string, unknown>;
}

function agentPod(manifests: readonly Manifest[]): PodSpec {
  const spec = one(manifests, "Deployment", "-agent-example").spec?.template?.spec;
  if (spec === undefined) throw new Error("no agent");
  return spec;
}

const named = (pod: PodSpec, name: string) => containersOf(pod).find((one) => one.name === name);

/** NOTES.txt, which helm template leaves out. */
function notes(...args: string[]): string {
  const copy = mkdtempSync(join(scratch, "notes-"));
  cpSync(chart, copy, { recursive: true });
  const text = readFileSync(join(chart, "templates/NOTES.txt"), "utf8");
  writeFileSync(join(copy, "templates/_notes.tpl"), `{{ define "notes" }}${text}{{ end }}`);
  writeFileSync(
    join(copy, "templates/notes.yaml"),
    'kind: Notes\nmetadata: { name: notes }\ndata: { text: {{ include "notes" . | quote }} }\n',
  );
  const { status, out, err } = helm(copy, ...args);
  expect(status, err).toBe(0);
  return one(manifestsOf(out), "Notes").data?.["text"] ?? "";
}

describe.skipIf(!hasHelm)("every example", () => {
  test("helm lint finds nothing", () => {
    for (const name of ["", ...examples]) {
      const values = name === "" ? [] : ["-f", join(chart, "ci", name)];
      execFileSync("helm", ["lint", "--strict", chart, ...values], { stdio: "pipe" });
    }
  });

  test.each(["", ...examples])("%s: the proxy accepts its file", async (name) => {
    const manifests = render(...(name === "" ? [] : ["-f", join(chart, "ci", name)]));
    const { code, stderr } = await pod.check(
      one(manifests, "ConfigMap", "t-authbridge-proxy").data ?? {},
    );
    expect(code, stderr).toBe(0);
    expect(stderr).not.toMatch(/cooperative|egress_enforcement/);
  });

  test.skipIf(!hasValidator).each(["", ...examples])(
    "%s: the oldest and the newest Kubernetes accept every object",
    (name) => {
      const values = name === "" ? [] : ["-f", join(chart, "ci", name)];
      const path = join(scratch, `${name || "default"}.yaml`);
      writeFileSync(path, helm(chart, ...values).out);
      for (const version of ["1.29", "1.37"]) {
        const checked = spawnSync(validator, ["--strict", "-k", version, path], {
          encoding: "utf8",
        });
        expect(checked.status, checked.stdout + checked.stderr).toBe(0);
        const unknown = [...(checked.stdout + checked.stderr).matchAll(/schema for kind (\w+)/g)];
        const foreign = ["Certificate", "Issuer", "PrometheusRule", "ServiceMonitor"];
        expect(
          unknown.map(([, kind = ""]) => kind).filter((kind) => !foreign.includes(kind)),
        ).toEqual([]);
      }
    },
  );

  test.skipIf(!hasValidator || customResources === "")(
    "cert-manager and the Prometheus Operator accept their resources",
    () => {
      const path = join(scratch, "custom.yaml");
      const own = ["--set", "ca.certManager.issuerRef=null"];
      const [full, platform] = ["gateway-full", "gateway-platform"].map((name) => [
        "-f",
        join(chart, "ci", `${name}-values.yaml`),
      ]) as [string[], string[]];
      const renderings = [full, [...full, ...own], platform];
      writeFileSync(path, renderings.map((values) => helm(chart, ...values).out).join(""));
      const python = join(validator, "../python");
      const script = resolve("test/support/custom-resources.py");
      const directories = customResources.split(":");
      const checked = spawnSync(python, [script, path, ...directories], { encoding: "utf8" });
      expect(checked.status, checked.stdout + checked.stderr).toBe(0);
      expect(checked.stdout.trim().split("\n").toSorted()).toEqual([
        ...["Certificate", "Certificate", "Issuer"].map((kind) => `${kind}: valid`),
        "PrometheusRule: valid",
        ...Array.from({ length: 3 }, () => "ServiceMonitor: valid"),
      ]);
    },
  );

  test.each(["", ...examples])(
    "%s: no pod has a token of the API, every container is restricted",
    (name) => {
      const manifests = render(...(name === "" ? [] : ["-f", join(chart, "ci", name)]));
      expect(one(manifests, "ServiceAccount").automountServiceAccountToken).toBe(false);
      const pods = podSpecs(manifests);
      expect(pods.length).toBeGreaterThan(0);
      for (const spec of pods) {
        expect(spec.automountServiceAccountToken).toBe(false);
        expect(spec.securityContext?.seccompProfile?.type).toBe("RuntimeDefault");
        for (const container of containersOf(spec)) {
          expect(container.resources?.limits?.["memory"], container.name).toBeDefined();
          const context = container.securityContext;
          expect(context).toMatchObject({
            allowPrivilegeEscalation: false,
            readOnlyRootFilesystem: true,
          });
          expect(context?.capabilities?.drop).toEqual(["ALL"]);
          if (container.name === "proxy-init") continue;
          expect(context?.runAsNonRoot).toBe(true);
          expect(context?.capabilities?.add).toBeUndefined();
          expect(context?.runAsUser === 1337).toBe(container.name === "authbridge-proxy");
        }
      }
    },
  );

  test.each(examples)("%s: no ConfigMap has a key, every selector finds its pods", (name) => {
    const manifests = render("-f", join(chart, "ci", name));
    for (const { data } of ofKind(manifests, "ConfigMap"))
      expect(JSON.stringify(data)).not.toContain("PRIVATE KEY");
    for (const { spec } of [
      ...ofKind(manifests, "Deployment"),
      ...ofKind(manifests, "StatefulSet"),
    ])
      expect(spec?.template?.metadata.labels).toMatchObject(
        spec?.selector?.matchLabels ?? { none: "" },
      );
  });
});

describe.skipIf(!hasHelm)("a gateway", () => {
  test("is the default, with everything that keeps it running", () => {
    const manifests = render();
    const kinds = manifests.map(({ kind }) => kind);
    for (const kind of [
      "Deployment",
      "Service",
      "ConfigMap",
      "ServiceAccount",
      "PodDisruptionBudget",
      "NetworkPolicy",
      "Pod",
    ])
      expect(kinds).toContain(kind);
    const { spec } = one(manifests, "Deployment");
    expect(spec?.replicas).toBe(2);
    const [container] = spec?.template?.spec.containers ?? [];
    expect(container).toMatchObject({
      livenessProbe: { httpGet: { path: "/livez" } },
      readinessProbe: { httpGet: { path: "/readyz" } },
      resources: { requests: { cpu: "100m" } },
    });
    expect(spec?.template?.spec).toMatchObject({
      topologySpreadConstraints: [
        { topologyKey: "kubernetes.io/hostname" },
        { topologyKey: "topology.kubernetes.io/zone" },
      ],
    });
    expect(fileOf(manifests)).toMatchObject({
      listener: { roles: ["forward"], transparent_proxy_addr: "off" },
      pipeline: { outbound: { default: "deny" } },
      stats: { address: "127.0.0.1:9093" },
    });
  });

  test("keeps agents from everything but itself and DNS, and strangers from itself", () => {
    const manifests = example("gateway");
    const pods = one(manifests, "Deployment", "t-authbridge-proxy").spec?.template?.metadata.labels;
    const agent = one(manifests, "NetworkPolicy", "-agent").spec;
    expect(agent?.podSelector?.matchLabels).toEqual(agentLabels);
    expect(agentPodLabels(manifests)).toMatchObject(agentLabels);
    expect(agent?.policyTypes).toEqual(["Egress"]);
    const [gateway, dns, ...others] = agent?.egress ?? [];
    expect(others).toEqual([]);
    expect(gateway?.ports).toEqual([{ protocol: "TCP", port: 8081 }]);
    expect(gateway?.to).toHaveLength(1);
    expect(pods).toMatchObject(gateway?.to?.[0]?.podSelector?.matchLabels ?? { none: "" });
    expect(dns?.ports?.map(({ port }) => port)).toEqual([53, 53]);
    expect(dns?.to?.[0]?.namespaceSelector?.matchLabels).toEqual({
      "kubernetes.io/metadata.name": "kube-system",
    });
    const own = one(manifests, "NetworkPolicy", "-gateway").spec;
    expect(pods).toMatchObject(own?.podSelector?.matchLabels ?? { none: "" });
    expect(own?.policyTypes).toEqual(["Ingress", "Egress"]);
    const [fromAgents, health] = own?.ingress ?? [];
    expect(fromAgents).toEqual({
      from: [{ podSelector: { matchLabels: agentLabels } }],
      ports: [{ protocol: "TCP", port: 8081 }],
    });
    expect(health?.ports).toEqual([{ protocol: "TCP", port: 9091 }]);
    const internet = own?.egress?.find(({ to }) => to?.[0]?.ipBlock !== undefined);
    expect(internet?.to?.[0]).toMatchObject({
      ipBlock: { except: expect.arrayContaining(["169.254.0.0/16", "10.0.0.0/8"]) },
    });
  });

  test("needs no DNS on the agent's side when its address is fixed", () => {
    const manifests = example(
      "gateway-full",
      "--set",
      "agentExample.enabled=true,ca.certificate=-----BEGIN CERTIFICATE-----",
    );
    const agent = one(manifests, "NetworkPolicy", "-agent");
    expect(agent.metadata.namespace).toBe("agents");
    expect(JSON.stringify(agent.spec?.egress)).not.toContain("53");
    const env = environmentOf(named(agentPod(manifests), "agent"));
    expect(env["HTTPS_PROXY"]).toBe("http://10.96.0.200:8081");
  });

  test("lets agents ask the node's DNS and no pod, where only its address is given", () => {
    const labels = ["podLabels", "namespaceLabels"].map((key) => `networkPolicy.dns.${key}=null`);
    const manifests = withSets(...labels, "networkPolicy.dns.ipBlocks[0]=169.254.20.10/32");
    for (const name of ["-agent", "-gateway"]) {
      const rules = one(manifests, "NetworkPolicy", name).spec?.egress ?? [];
      const dns = rules.filter(({ ports }) => ports?.some(({ port }) => port === 53));
      expect(dns.map(({ to }) => to)).toEqual([[{ ipBlock: { cidr: "169.254.20.10/32" } }]]);
    }
  });

  test.each(["null", "true", "1e3"])(
    "selects its own pods when the release is called %s",
    (name) => {
      const { stdout } = spawnSync("helm", ["template", name, chart], { encoding: "utf8" });
      const service = ofKind(manifestsOf(stdout), "Service")[0];
      expect(service?.spec).toMatchObject({ selector: { "app.kubernetes.io/instance": name } });
    },
  );

  test("is an inbound one, too, for the agent's Service", () => {
    const manifests = example("gateway-full");
    expect(fileOf(manifests)).toMatchObject({
      listener: {
        roles: ["reverse", "forward"],
        reverse_proxy_backend: "http://weather-agent.agents.svc:8000",
        forward_proxy_addr: "[::]:8081",
      },
    });
    const [fromGateway] = one(manifests, "NetworkPolicy", "-agent").spec?.ingress ?? [];
    expect(fromGateway?.ports).toEqual([{ protocol: "TCP", port: 8000 }]);
    const toAgent = one(manifests, "NetworkPolicy", "-gateway").spec?.egress?.find(
      ({ ports }) => ports?.[0]?.port === 8000,
    );
    expect(toAgent?.to?.[0]?.podSelector?.matchLabels).toEqual({ app: "weather-agent" });
  });

  test("scales as a StatefulSet, and then has no fixed number of replicas", () => {
    const manifests = example("gateway-full");
    const { spec } = one(manifests, "StatefulSet");
    expect(spec?.replicas).toBeUndefined();
    expect(one(manifests, "HorizontalPodAutoscaler").spec).toMatchObject({
      scaleTargetRef: { kind: "StatefulSet", name: "t-authbridge-proxy" },
    });
    expect(one(manifests, "ServiceMonitor").spec).toMatchObject({
      endpoints: [{ path: "/metrics" }],
    });
  });

  test("brings the dashboard for Grafana along", () => {
    const manifests = withSets("metrics.enabled=true", "metrics.dashboard.enabled=true");
    const { data, metadata } = one(manifests, "ConfigMap", "-dashboards");
    expect(metadata.labels).toMatchObject({ grafana_dashboard: "1" });
    const shipped = readFileSync("deploy/grafana/authbridge-proxy.json", "utf8");
    expect(JSON.parse(data?.["authbridge-proxy.json"] ?? "")).toEqual(JSON.parse(shipped));
  });

  test("rolls its pods for keys that need a restart, and for no others", () => {
    const sum = (...sets: string[]): unknown =>
      one(withSets(...sets), "Deployment").spec?.template?.metadata;
    expect(sum("config.limits.max_connections=1")).not.toEqual(sum());
    expect(sum("config.reload.recheck_tunnels=false")).toEqual(sum());
    expect(sum("config.reload.enabled=false")).not.toEqual(sum());
  });

  function agentPodLabels(manifests: readonly Manifest[]) {
    return one(manifests, "Deployment", "-agent-example").spec?.template?.metadata.labels;
  }
});

describe.skipIf(!hasHelm)("a shared gateway", () => {
  test("fences every agent in its namespace and knows them by name", () => {
    const manifests = example("shared");
    const policies = ofKind(manifests, "NetworkPolicy").filter(({ metadata }) =>
      metadata.name.includes("-agent-"),
    );
    expect(policies.map(({ metadata }) => metadata.namespace)).toEqual(["billing", "research"]);
    for (const { spec } of policies)
      expect(spec?.egress?.[0]?.to?.[0]).toMatchObject({
        namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "default" } },
      });
    expect(fileOf(manifests)["callers"]).toEqual({
      clients: [
        { name: "billing", password_file: "/etc/authbridge-callers/billing" },
        {
          name: "research",
          password_file: "/etc/authbridge-callers/research",
          certificate: "spiffe://example.org/ns/research/sa/agent",
        },
      ],
    });
    const [fromAgents] = one(manifests, "NetworkPolicy", "-gateway").spec?.ingress ?? [];
    expect(fromAgents?.from).toHaveLength(2);
  });
});

describe.skipIf(!hasHelm)("the authority", () => {
  test("of a trial is marked as such, and its ca.crt is published without the key", () => {
    const manifests = withSets("ca.selfSigned=true");
    const secret = one(manifests, "Secret");
    expect(secret.metadata.annotations).toEqual({ "authbridge-proxy/trial-only": "true" });
    const pem = Buffer.from(secret.data?.["ca.crt"] ?? "", "base64").toString();
    expect(new X509Certificate(pem).ca).toBe(true);
    expect(one(manifests, "ConfigMap", "-trust").data).toEqual({
      "ca.crt": pem,
      "ca-bundle.crt": pem,
    });
  });

  test("of cert-manager is a CA that the chart's own Issuer signs, unless another is named", () => {
    const own = withSets("ca.certManager.enabled=true");
    expect(one(own, "Issuer").spec).toEqual({ selfSigned: {} });
    expect(one(own, "Certificate").spec).toMatchObject({
      isCA: true,
      secretName: "t-authbridge-proxy-ca",
      issuerRef: { kind: "Issuer", name: "t-authbridge-proxy-ca" },
    });
    const named = example("gateway-full");
    expect(ofKind(named, "Issuer")).toEqual([]);
    expect(one(named, "Certificate").spec).toMatchObject({ issuerRef: { name: "platform-ca" } });
  });

  test("reaches agents by ca.crt alone, also from a Secret", () => {
    const agent = agentPod(withSets("ca.existingSecret=bridge-ca", "agentExample.enabled=true"));
    expect(agent.volumes).toEqual([
      {
        name: "authbridge-trust",
        secret: {
          secretName: "bridge-ca",
          items: [
            { key: "ca.crt", path: "ca.crt" },
            { key: "ca.crt", path: "ca-bundle.crt" },
          ],
        },
      },
    ]);
  });

  test("of each sidecar's own is made in memory, and the agent sees its certificate only", () => {
    const agent = agentPod(example("sidecar"));
    expect(named(agent, "agent")?.volumeMounts).toEqual([
      {
        name: "authbridge-ca",
        mountPath: "/etc/authbridge/ca.crt",
        subPath: "ca.crt",
        readOnly: true,
      },
      {
        name: "authbridge-ca",
        mountPath: "/etc/authbridge/ca-bundle.crt",
        subPath: "ca.crt",
        readOnly: true,
      },
    ]);
  });
});

describe.skipIf(!hasHelm)("a sidecar", () => {
  test("redirects first, then the proxy, then the agent as another user", () => {
    const manifests = example("sidecar");
    const agent = agentPod(manifests);
    expect(containersOf(agent).map(({ name }) => name)).toEqual([
      "proxy-init",
      "authbridge-proxy",
      "agent",
    ]);
    expect(named(agent, "authbridge-proxy")?.restartPolicy).toBe("Always");
    const init = named(agent, "proxy-init");
    expect(init?.securityContext).toMatchObject({
      runAsUser: 0,
      capabilities: { add: ["NET_ADMIN", "NET_RAW"] },
    });
    expect(environmentOf(init)).toMatchObject({
      MODE: "enforce-redirect",
      PROXY_UID: "1337",
      TRANSPARENT_PORT: "8082",
    });
    expect(fileOf(manifests)).toMatchObject({
      egress_enforcement: "enforce-redirect",
      listener: {
        transparent_proxy_addr: ":8082",
        forward_proxy_addr: "127.0.0.1:8081",
        reverse_proxy_addr: ":8080",
      },
    });
    const [callers] = one(manifests, "NetworkPolicy", "-sidecar").spec?.ingress ?? [];
    expect(callers?.ports).toEqual([{ protocol: "TCP", port: 8080 }]);
  });

  test("captures what others send to the agent's own ports, where that is asked for", () => {
    const manifests = example("sidecar-inbound");
    const agent = agentPod(manifests);
    expect(environmentOf(named(agent, "proxy-init"))).toMatchObject({
      INBOUND_PROXY_PORT: "8083",
      INBOUND_PORTS_EXCLUDE: "9091",
    });
    expect(environmentOf(named(agent, "agent"))).toMatchObject({ HOST: "0.0.0.0" });
    const { listener } = fileOf(manifests);
    expect(listener).toMatchObject({
      inbound_interception: "transparent",
      transparent_inbound_addr: ":8083",
      inbound_passthrough_ports: [],
    });
    expect(listener).not.toHaveProperty("reverse_proxy_addr");
    const [callers] = one(manifests, "NetworkPolicy", "-sidecar").spec?.ingress ?? [];
    expect(callers?.ports).toEqual([{ protocol: "TCP", port: 8000 }]);
    const scraped = example("sidecar-inbound", "--set", "metrics.enabled=true");
    expect(environmentOf(named(agentPod(scraped), "proxy-init"))).toMatchObject({
      INBOUND_PORTS_EXCLUDE: "9091,9093",
    });
  });

  test.each(["sidecar", "sidecar-inbound", "sidecar-kata", "cooperative"])(
    "%s: the fragment is what the example has",
    (name) => {
      const manifests = example(name);
      const fragment = parse(
        one(manifests, "ConfigMap", "-pod-fragment").data?.["fragment.yaml"] ?? "",
      ) as PodSpec;
      const agent = agentPod(manifests);
      expect(fragment.initContainers).toEqual(agent.initContainers);
      expect(fragment.volumes).toEqual(agent.volumes);
      const mine = environmentOf(named(fragment, "agent"));
      expect(environmentOf(named(agent, "agent"))).toMatchObject(mine);
      expect(named(fragment, "agent")?.volumeMounts).toEqual(named(agent, "agent")?.volumeMounts);
    },
  );

  test("tells the agent what env would", () => {
    const env = environmentOf(named(agentPod(example("sidecar")), "agent"));
    const trust = {
      caFile: "/etc/authbridge/ca.crt",
      bundleFile: "/etc/authbridge/ca-bundle.crt",
      javaStoreFile: "none",
    };
    const wanted = Object.fromEntries(clientEnvironment({ host: "127.0.0.1", port: 8081 }, trust));
    const { JAVA_TOOL_OPTIONS: java = "", ...others } = wanted;
    expect(env).toMatchObject(others);
    expect(java.startsWith(env["JAVA_TOOL_OPTIONS"] ?? "none")).toBe(true);
  });

  test("runs in a virtual machine with its 2Gi", () => {
    const agent = agentPod(example("sidecar-kata"));
    expect(agent.runtimeClassName).toBe("kata");
    expect(named(agent, "agent")?.resources).toMatchObject({
      limits: { memory: "2Gi" },
      requests: { memory: "2Gi" },
    });
  });
});

describe.skipIf(!hasHelm)("what the proxy writes", () => {
  const files = [
    "config.audit.path=/var/lib/authbridge/audit.jsonl",
    "config.session.persist.path=/var/lib/authbridge/events.jsonl",
  ];
  const mount = { name: "authbridge-data", mountPath: "/var/lib/authbridge" };

  test("is in a claim of each pod of a StatefulSet", () => {
    const manifests = withSets(...files, "persistence.enabled=true", "gateway.kind=StatefulSet");
    const { spec } = one(manifests, "StatefulSet");
    expect(spec).toMatchObject({
      volumeClaimTemplates: [
        {
          metadata: { name: "authbridge-data" },
          spec: { accessModes: ["ReadWriteOnce"], resources: { requests: { storage: "1Gi" } } },
        },
      ],
    });
    const pod = spec?.template?.spec;
    expect(pod === undefined ? undefined : named(pod, "authbridge-proxy")).toMatchObject({
      volumeMounts: expect.arrayContaining([mount]) as unknown,
    });
  });

  test.each([
    ["a sidecar", "topology=sidecar"],
    ["a Deployment", "gateway.kind=Deployment"],
  ])("is in an emptyDir of %s where the values say so", (_where, set) => {
    const manifests = withSets(
      set,
      ...files,
      "persistence.enabled=true",
      "persistence.ephemeral=true",
      "persistence.size=2Gi",
    );
    const found = podSpecs(manifests).filter((spec) => named(spec, "authbridge-proxy"));
    expect(found.length).toBeGreaterThan(0);
    for (const spec of found) {
      expect(named(spec, "authbridge-proxy")?.volumeMounts).toContainEqual(mount);
      expect(spec.volumes).toContainEqual({ name: mount.name, emptyDir: { sizeLimit: "2Gi" } });
    }
  });
});

describe.skipIf(!hasHelm)("an upgrade", () => {
  test.each(examples)("of %s first checks the new file, with all that it names", (values) => {
    const manifests = render("-f", join(chart, "ci", values));
    const file = ofKind(manifests, "ConfigMap").find(
      ({ metadata }) => metadata.name === "t-authbridge-proxy-check",
    );
    expect(file?.data).toEqual(one(manifests, "ConfigMap", "t-authbridge-proxy").data);
    const job = one(manifests, "Job");
    for (const hook of [file, job]) {
      expect(hook?.metadata.annotations?.["helm.sh/hook"]).toBe("pre-upgrade,pre-rollback");
    }
    const spec = job.spec?.template?.spec;
    const volumes = spec?.volumes?.map(({ name }) => name);
    const check = spec === undefined ? undefined : named(spec, "authbridge-proxy");
    expect(check?.args).toEqual(["check", "--config", "/etc/authbridge/config.yaml"]);
    for (const { name } of check?.volumeMounts ?? []) expect(volumes).toContain(name);
  });

  test("checks nothing where that is switched off", () => {
    expect(ofKind(withSets("checkOnUpgrade.enabled=false"), "Job")).toEqual([]);
  });
});

describe.skipIf(!hasHelm)("scraping", () => {
  const scraped = ["--set", "metrics.enabled=true,metrics.serviceMonitor.enabled=true"];
  const words = /nobody can scrape[\s\S]*9093[\s\S]*networkPolicy\.ingress\.metricsFrom/;

  test("that the network policy keeps out is told", () => {
    expect(notes(...scraped)).toMatch(words);
    expect(notes("--set", "metrics.enabled=true")).toMatch(words);
  });

  test.each([
    ["nothing is scraped", []],
    [
      "somebody is let in",
      [...scraped, "--set-json", 'networkPolicy.ingress.metricsFrom=[{"podSelector":{}}]'],
    ],
    [
      "there is no policy",
      [...scraped, "--set", "networkPolicy.enabled=false,networkPolicy.managedElsewhere=true"],
    ],
  ])("is not spoken of where %s", (_where, args) => {
    expect(notes(...args)).not.toMatch(words);
  });
});

describe.skipIf(!hasHelm)("users that the platform gives out", () => {
  const unset = "proxy.uid=null,agentExample.uid=null";
  test.each([
    ["in a gateway", [unset, "agentExample.enabled=true"]],
    [
      "in a cooperative sidecar",
      [unset, "topology=sidecar,egressEnforcement=none,acknowledgeCooperativeMode=true"],
    ],
  ])("are not named %s, and root is still refused", (_where, sets) => {
    const manifests = withSets(...sets);
    expect(JSON.stringify(manifests)).not.toMatch(/runAsUser|runAsGroup|fsGroup|<nil>/);
    for (const spec of podSpecs(manifests)) {
      for (const { securityContext } of containersOf(spec)) {
        expect(securityContext).toMatchObject({ runAsNonRoot: true });
      }
    }
  });
});

describe.skipIf(!hasHelm)("egressEnforcement: none", () => {
  test("renders no init container that redirects, both listeners, and the variables in both cases", () => {
    const manifests = example("cooperative");
    const text = JSON.stringify(manifests);
    expect(text).not.toContain("proxy-init");
    expect(text).not.toContain("NET_ADMIN");
    const env = environmentOf(named(agentPod(manifests), "agent"));
    for (const name of ["HTTP_PROXY", "HTTPS_PROXY"]) {
      expect(env[name]).toBe("http://127.0.0.1:8081");
      expect(env[name.toLowerCase()]).toBe(env[name]);
    }
    expect(env["NO_PROXY"]).toBe(env["no_proxy"]);
    expect(fileOf(manifests)).toMatchObject({
      egress_enforcement: "none",
      acknowledge_cooperative_mode: true,
      listener: {
        roles: ["reverse", "forward"],
        forward_proxy_addr: "127.0.0.1:8081",
        reverse_proxy_addr: ":8080",
      },
    });
    expect(ofKind(manifests, "Pod")).toEqual([]);
  });

  test("is said again in NOTES.txt, with what it does not give", () => {
    expect(notes("-f", join(chart, "ci/cooperative-values.yaml"))).toMatch(
      /COOPERATIVE MODE[\s\S]*does not give[\s\S]*L4[\s\S]*without exchange[\s\S]*401/,
    );
    expect(notes("-f", join(chart, "ci/sidecar-values.yaml"))).not.toContain("COOPERATIVE");
  });

  test("leaves the default as it is", () => {
    const agent = agentPod(withSets("topology=sidecar"));
    expect(named(agent, "proxy-init")).toBeDefined();
  });
});

describe.skipIf(!hasHelm)("what is refused, and with which words", () => {
  test.each([
    [
      "topology=sidecar,egressEnforcement=none",
      /cannot tell agent from proxy inside one pod.*acknowledgeCooperativeMode: true/,
    ],
    ["acknowledgeCooperativeMode=true", /no meaning without egressEnforcement: none/],
    ["networkPolicy.enabled=false", /managedElsewhere/],
    ["ca.ephemeral=true", /agents in other pods cannot trust it beforehand/],
    ["config.tls_bridge.ca=ephemeral", /ephemeral is refused/],
    ["ca.selfSigned=true,ca.existingSecret=a", /exclude each other/],
    [
      "config.listener.forward_proxy_addr=:1",
      /config\.listener\.forward_proxy_addr is decided by the chart/,
    ],
    ["config.pipeline.outbound.default=allow", /set outbound/],
    ["config.egress_enforcement=none", /set egressEnforcement/],
    ["inbound.enabled=true", /inbound\.backend/],
    ["inbound.enabled=true,inbound.backend=http://a", /inbound\.plugins/],
    ["inbound.interception=transparent,inbound.enabled=true", /needs topology sidecar/],
    ["topology=sidecar,inbound.interception=transparent", /needs inbound\.enabled/],
    [
      "topology=sidecar,inbound.interception=transparent,inbound.enabled=true",
      /needs inbound\.ports/,
    ],
    ["topology=sidecar,inbound.ports={8000}", /need inbound\.interception: transparent/],
    ["networkPolicy.dns.allowAgent=false", /gateway\.service\.clusterIP/],
    ["mode=shared", /needs agents/],
    ["mode=shared,agents[0].name=a", /cannot tell its agents apart/],
    ["mode=shared,topology=sidecar", /egress-gateway/],
    ["callers.existingSecret=a", /mode: shared/],
    ["topology=sidecar,agentExample.uid=1337", /redirect exempts that user/],
    ["topology=sidecar,ca.ephemeral=true,sidecar.native=false", /sidecar\.native/],
    ["metrics.serviceMonitor.enabled=true", /metrics\.enabled/],
    ["topology=gateway", /topology/],
    ["nonsense=1", /additional properties 'nonsense' not allowed/],
    ["proxy.uid=0", /uid/],
    ["config.audit.path=/var/lib/authbridge/a", /config\.audit writes.*persistence\.enabled/],
    ["config.session.persist.path=/var/lib/authbridge/a", /session\.persist writes/],
    ["persistence.enabled=true", /gateway\.kind: StatefulSet/],
    ["persistence.enabled=true,topology=sidecar", /persistence\.ephemeral: true/],
    [
      "persistence.enabled=true,persistence.ephemeral=true,config.audit.path=/var/lib/authbridge/../a",
      /config\.audit\.path must be below/,
    ],
    ["topology=sidecar,proxy.uid=null", /proxy\.uid is needed.*redirect exempts/],
    ["topology=sidecar,agentExample.uid=null", /agentExample\.uid is needed.*OpenShift/],
    // Where a rule of a NetworkPolicy names no ports or no labels, it means all of them.
    ["networkPolicy.dns.ports=null", /networkPolicy\.dns\.ports.*opens all of them/],
    ["networkPolicy.egress.internet.ports=null", /egress\.internet\.enabled: false/],
    ["topology=sidecar,networkPolicy.egress.internet.ports=null", /internet\.enabled: false/],
    ["networkPolicy.dns.podLabels=null", /networkPolicy\.dns\.podLabels.*every pod/],
    ["networkPolicy.dns.namespaceLabels=null", /networkPolicy\.dns\.namespaceLabels.*every/],
    [
      "networkPolicy.dns.namespaceLabels=null,networkPolicy.dns.podLabels=null",
      /networkPolicy\.dns\.ipBlocks/,
    ],
  ])("%s", (sets, words) => {
    const { status, err } = helm(chart, "--set", sets);
    expect(status).not.toBe(0);
    expect(err).toMatch(words);
  });
});
