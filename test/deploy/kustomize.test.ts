/** The overlays, built by kubectl: the same promises as the chart's. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import {
  containersOf,
  environmentOf,
  isOnPath,
  type Manifest,
  manifestsOf,
  ofKind,
  one,
  podSpecs,
} from "../support/manifests.ts";
import { PodFiles } from "../support/proxy-file.ts";

const hasKubectl = isOnPath("kubectl", "version", "--client");
const validator = process.env["KUBERNETES_VALIDATE"] ?? "kubernetes-validate";
const hasValidator = isOnPath(validator, "--version");
const overlays = ["gateway", "sidecar", "cooperative"] as const;
const scratch = mkdtempSync(join(tmpdir(), "authbridge-kustomize-"));
const built = new Map<string, string>();
let pod: PodFiles;

const textOf = (name: string): string => built.get(name) ?? "";
const manifests = (name: string): Manifest[] => manifestsOf(textOf(name));

beforeAll(async () => {
  pod = await PodFiles.make();
  if (!hasKubectl) return;
  for (const name of overlays) {
    const path = `deploy/kustomize/overlays/${name}`;
    built.set(name, execFileSync("kubectl", ["kustomize", path], { encoding: "utf8" }));
  }
});
afterAll(() => {
  pod.close();
  rmSync(scratch, { recursive: true, force: true });
});

describe.skipIf(!hasKubectl)("kustomize", () => {
  test.each(overlays)("%s: the proxy accepts its file", async (name) => {
    const { data } = one(manifests(name), "ConfigMap");
    const { code, stderr } = await pod.check(data ?? {});
    expect(code, stderr).toBe(0);
    expect(stderr).not.toContain("egress_enforcement");
  });

  test.skipIf(!hasValidator).each(overlays)("%s: Kubernetes accepts every object", (name) => {
    const path = join(scratch, `${name}.yaml`);
    writeFileSync(path, textOf(name));
    const checked = spawnSync(validator, ["--strict", "-k", "1.33", path], { encoding: "utf8" });
    expect(checked.status, checked.stdout + checked.stderr).toBe(0);
  });

  test.each(overlays)("%s: no token, every container restricted, images with a tag", (name) => {
    const all = manifests(name);
    expect(one(all, "ServiceAccount").automountServiceAccountToken).toBe(false);
    for (const spec of podSpecs(all)) {
      expect(spec.automountServiceAccountToken).toBe(false);
      for (const container of containersOf(spec)) {
        expect(container.image).toMatch(/:[\w.-]+$/);
        expect(container.securityContext).toMatchObject({
          allowPrivilegeEscalation: false,
          readOnlyRootFilesystem: true,
          capabilities: { drop: ["ALL"] },
        });
        if (container.name === "proxy-init") continue;
        expect(container.securityContext?.runAsNonRoot).toBe(true);
        expect(container.securityContext?.capabilities?.add).toBeUndefined();
      }
    }
  });

  test("gateway: agents reach it and DNS alone, and it takes agents alone", () => {
    const all = manifests("gateway");
    const labels = one(all, "Deployment").spec?.template?.metadata.labels;
    const agent = one(all, "NetworkPolicy", "-agent").spec;
    expect(agent?.policyTypes).toEqual(["Egress"]);
    expect(agent?.egress?.map(({ ports }) => ports?.map(({ port }) => port))).toEqual([
      [8081],
      [53, 53],
    ]);
    expect(labels).toMatchObject(
      agent?.egress?.[0]?.to?.[0]?.podSelector?.matchLabels ?? { none: "" },
    );
    const gateway = one(all, "NetworkPolicy", "-gateway").spec;
    expect(labels).toMatchObject(gateway?.podSelector?.matchLabels ?? { none: "" });
    expect(gateway?.ingress?.[0]?.from?.[0]?.podSelector).toEqual({
      matchLabels: agent?.podSelector?.matchLabels,
    });
  });

  test("sidecar: redirect, proxy, agent, in this order and as three users", () => {
    const [spec] = podSpecs(manifests("sidecar"));
    const containers = spec === undefined ? [] : containersOf(spec);
    expect(
      containers.map(({ name, securityContext }) => [name, securityContext?.runAsUser]),
    ).toEqual([
      ["proxy-init", 0],
      ["authbridge-proxy", 1337],
      ["agent", 1000],
    ]);
  });

  test("cooperative: no redirect, the variables, and the file says so", () => {
    expect(textOf("cooperative")).not.toMatch(/proxy-init|NET_ADMIN/);
    const all = manifests("cooperative");
    const [spec] = podSpecs(all);
    const env = environmentOf(spec?.containers.find(({ name }) => name === "agent"));
    expect(env["HTTP_PROXY"]).toBe("http://127.0.0.1:8081");
    expect(env["https_proxy"]).toBe(env["HTTP_PROXY"]);
    const file = one(all, "ConfigMap").data?.["config.yaml"];
    expect(file).toMatch(/egress_enforcement: none\nacknowledge_cooperative_mode: true/);
    expect(ofKind(all, "Deployment")).toHaveLength(1);
  });
});
