/** docs/acceptance.md names tests that exist, and says what documents and manifests have to hold. */
import { globSync, readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";

const read = (path: string): string => readFileSync(path, "utf8");
const rows = read("docs/acceptance.md")
  .split("\n")
  .filter((line) => line.startsWith("| ") && !/^\| (?:---|asked for|row |suite )/.test(line));

describe("docs/acceptance.md", () => {
  test("covers what was asked for, row by row", () => {
    const text = rows.join("\n");
    for (const point of ["1. ", "2. ", "3. ", "Phase 1", "Phase 2", "Phase 3", "kata"])
      expect(text).toContain(`| ${point}`.replace("| kata", "kata"));
    expect(rows.length).toBeGreaterThan(30);
  });

  test.each(rows)("%s", (row) => {
    const proofs = [...row.matchAll(/`(test\/[\w./-]+\.ts)` "([^"]+)"/g)];
    expect(proofs.length).toBeGreaterThan(0);
    for (const [, path = "", name = ""] of proofs) expect(read(path)).toContain(name);
  });
});

test("the limits of the cooperative mode are said in every place where it is chosen", () => {
  for (const path of [
    "deploy/helm/authbridge-proxy/values.yaml",
    "deploy/helm/authbridge-proxy/README.md",
    "deploy/helm/authbridge-proxy/templates/NOTES.txt",
    "deploy/kustomize/overlays/cooperative/kustomization.yaml",
    "docs/topologies.md",
    "docs/security.md",
    "README.md",
  ])
    expect(read(path).replaceAll(/\s*\n[#\s]*/g, " "), path).toMatch(
      /is L4 and cannot tell|is L4: inside one pod|is L4 and bounds|cannot tell the agent's packets from the proxy's/,
    );
});

test("docs/topologies.md compares the topologies by threat and by cost", () => {
  const text = read("docs/topologies.md");
  for (const heading of [
    "## Which one",
    "## Threats",
    "## Cost",
    "## Egress gateway",
    "## Sidecar",
    "## Cooperative",
  ])
    expect(text).toContain(heading);
  expect(text).toMatch(/C1[^|]*default-allow egress/);
  expect(text).toMatch(/C2[^|]*theft of secrets/);
});

test("no manifest mounts anything of the host or shares its namespaces", () => {
  const paths = globSync([
    "deploy/helm/**/*.{yaml,tpl}",
    "deploy/kustomize/**/*.yaml",
    "deploy/*.yaml",
  ]);
  expect(paths.length).toBeGreaterThan(20);
  for (const path of paths)
    expect(read(path), path).not.toMatch(
      /hostPath|hostNetwork|hostPID|hostIPC|docker\.sock|privileged: true|shareProcessNamespace/,
    );
});
