/** The properties of both images' descriptions that a linter or a reviewer would ask for. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parse } from "yaml";
import { PodFiles } from "../../support/proxy-file.ts";
import { isBundled, isDeadWeight } from "../../../scripts/prune-modules.ts";

/** Instructions with their continuation lines joined, comments left out. */
function instructions(path: string): string[] {
  return readFileSync(path, "utf8")
    .replaceAll(/^\s*#.*\n/gm, "")
    .replaceAll(/\\\n\s*/g, "")
    .split("\n")
    .filter((line) => line.trim() !== "");
}

const proxy = instructions("Dockerfile");
const stages = proxy.filter((line) => line.startsWith("FROM "));
const last = proxy.slice(proxy.lastIndexOf(stages.at(-1) ?? ""));
const { version } = JSON.parse(readFileSync("package.json", "utf8")) as { version: string };

describe.each([
  ["Dockerfile", proxy],
  ["deploy/proxy-init/Dockerfile", instructions("deploy/proxy-init/Dockerfile")],
])("%s", (_path, lines) => {
  test("names its base with a tag, and nothing is fetched at build time but packages", () => {
    expect(lines.find((line) => /^ARG (?:NODE|BASE)_IMAGE=\S+:\S+$/.test(line))).toBeDefined();
    expect(lines.filter((line) => /^ADD |curl |wget |:latest|sudo /.test(line))).toEqual([]);
  });

  test("takes apt packages without recommendations and without their lists", () => {
    for (const line of lines.filter((one) => one.includes("apt-get install")))
      expect(line).toMatch(/--no-install-recommends.*rm -rf \/var\/lib\/apt\/lists/);
  });

  test("starts its program as a list, so that signals reach it", () => {
    for (const line of lines.filter((one) => /^(?:ENTRYPOINT|CMD) /.test(one)))
      expect(line).toMatch(/ \[".*"\]$/);
  });

  test("has labels", () => {
    const labels = lines.filter((line) => line.startsWith("LABEL ")).join(" ");
    for (const key of ["title", "description", "licenses"])
      expect(labels).toContain(`org.opencontainers.image.${key}=`);
  });
});

describe("the proxy's image", () => {
  test("is built in one stage and runs from another without development dependencies", () => {
    expect(stages).toEqual(["FROM ${NODE_IMAGE} AS build", "FROM ${NODE_IMAGE}"]);
    expect(proxy.join("\n")).toMatch(
      /npm ci[\s\S]*bill-of-materials\.ts sbom\.cdx\.json[\s\S]*npm prune --omit=dev/,
    );
    expect(last.join("\n")).not.toMatch(/npm /);
  });

  test("runs as 1337, a number, and nothing changes the user after that", () => {
    expect(last.filter((line) => line.startsWith("USER "))).toEqual(["USER 1337:1337"]);
    const after = last.slice(last.indexOf("USER 1337:1337") + 1);
    expect(after.filter((line) => /^(?:RUN|COPY|ADD|USER) /.test(line))).toEqual([]);
  });

  test("has a health check that needs no other program than Node, and a bill of materials", () => {
    expect(last.find((line) => line.startsWith("HEALTHCHECK "))).toMatch(
      /CMD \["node", "\/app\/dist\/main\.js", "health", "--config", /,
    );
    expect(last).toContain("COPY --from=build /build/sbom.cdx.json ./");
  });

  test("ships compiled code for its user, made where it will run", () => {
    expect(proxy.join("\n")).toMatch(/cp -r dist .*\/app\/.*compile-cache\.ts \/app 1337/);
    expect(last).toContain("WORKDIR /app");
    expect(last).toContain("COPY --from=build /app/dist ./dist");
  });

  test("bounds the young generation by an option that can be replaced, and that this Node knows", () => {
    const [, flags = ""] = /NODE_OPTIONS=(\S+)/.exec(last.join("\n")) ?? [];
    expect(flags).toMatch(/^--max-semi-space-size=\d+$/);
    execFileSync(process.execPath, ["-e", ""], { env: { NODE_OPTIONS: flags } });
  });

  test("says its version", () => {
    expect(proxy).toContain(`ARG VERSION=${version}`);
  });

  test("starts from an absolute path, whatever the working directory", () => {
    expect(last).toContain('ENTRYPOINT ["node", "/app/dist/main.js"]');
  });
});

describe("what is taken out of packages", () => {
  test.each([
    "node_modules/zod/README.md",
    "node_modules/zod/src/index.ts",
    "node_modules/a/dist/x.js.map",
    "node_modules/@s/a/test/x.js",
    "dist/main.d.ts",
  ])("%s", (path) => expect(isDeadWeight(path)).toBe(true));

  test.each([
    "node_modules/yaml/dist/doc/directives.js",
    "node_modules/a/LICENSE.md",
    "node_modules/a/package.json",
    "node_modules/@koromix/koffi-linux-x64/koffi.node",
    "node_modules/a/lib/test/x.js",
    "dist/main.js",
    "dist/program.js.map",
  ])("not %s", (path) => expect(isDeadWeight(path)).toBe(false));

  test("packages that are in the bundle, but not native ones, nor what plugins of users import", () => {
    expect(isBundled("node_modules/undici/index.js")).toBe(true);
    expect(isBundled("node_modules/@opentelemetry/api/build/src/index.js")).toBe(true);
    for (const path of ["koffi/index.js", "@koromix/koffi-linux-x64/koffi.node", "zod/index.js"])
      expect(isBundled(`node_modules/${path}`)).toBe(false);
    expect(isBundled("dist/main.js")).toBe(false);
  });
});

describe("compose.yaml", () => {
  interface Service {
    readonly networks?: string[];
    readonly cap_drop?: string[];
    readonly read_only?: boolean;
    readonly volumes?: string[];
    readonly ports?: string[];
  }
  const compose = parse(readFileSync("deploy/compose.yaml", "utf8")) as {
    services: Record<string, Service>;
    networks: Record<string, { internal?: boolean }>;
    volumes: Record<string, unknown>;
  };

  test("has a file that the proxy accepts", async () => {
    const pod = await PodFiles.make();
    try {
      const text = readFileSync("deploy/compose/config.yaml", "utf8");
      const here = text.replace("/var/lib/authbridge/ca", pod.path("ca"));
      const { code, stderr } = await pod.check({ "config.yaml": here });
      expect(code, stderr).toBe(0);
    } finally {
      pod.close();
    }
  });

  test("gives the agent no network but the internal one, and not the key", () => {
    expect(compose.networks["agents"]).toEqual({ internal: true });
    expect(compose.services["agent"]?.networks).toEqual(["agents"]);
    expect(compose.services["agent"]?.volumes).toEqual(["trust:/var/lib/authbridge/trust:ro"]);
    expect(compose.services["proxy"]?.networks).toEqual(["agents", "outside"]);
  });

  test("drops every capability, writes nowhere but volumes, publishes on loopback only", () => {
    for (const service of Object.values(compose.services)) {
      expect(service).toMatchObject({ cap_drop: ["ALL"], read_only: true });
      for (const port of service.ports ?? []) expect(port).toMatch(/^127\.0\.0\.1:/);
      for (const volume of service.volumes ?? []) {
        const [name = ""] = volume.split(":");
        expect(name.startsWith("./") || name in compose.volumes).toBe(true);
      }
    }
  });
});
