/** The documents say what the code does: codes, layers, keys, metrics, files, links and examples. */
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { rootCertificates } from "node:tls";
import { afterAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { buildRuntime } from "../src/app/build.ts";
import { buildProblems } from "../src/app/build-problems.ts";
import { CarriedState } from "../src/app/carried-state.ts";
import { definitionsFor } from "../src/app/definitions.ts";
import { buildJsonSchema } from "../src/config/json-schema.ts";
import { loadConfig } from "../src/config/load.ts";
import { formatProblem } from "../src/yaml/problem.ts";
import { errorTable } from "../src/errors.ts";
import { parseRoutesFile } from "../src/plugins/token-exchange/routes.ts";
import { builtinPlugins } from "../src/plugins/index.ts";
import { createLogger } from "../src/telemetry/log.ts";
import { Metrics } from "../src/telemetry/metrics.ts";
import { OwnListeners } from "../src/upstream/own-listeners.ts";
import { layers } from "./support/layers.ts";

const root = resolve(import.meta.dirname, "..");
const read = (path: string): string => readFileSync(join(root, path), "utf8");
const find = (...patterns: string[]): string[] => globSync(patterns, { cwd: root }).sort();

const documents = find("*.md", "docs/**/*.md", "examples/**/*.md", "bench/*.md");
const scratch = mkdtempSync(join(tmpdir(), "authbridge-documents-"));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));

/** The cells of every row of the table below a heading row that begins with `heading`. */
function tableRows(markdown: string, heading: string): string[][] {
  const lines = markdown.split("\n");
  const start = lines.findIndex((line) => line.startsWith("|") && line.includes(heading));
  const rows: string[][] = [];
  for (const line of lines.slice(start + 2)) {
    if (!line.startsWith("|")) break;
    rows.push(
      line
        .split(/(?<!\\)\|/)
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
  }
  return rows;
}

/** The fenced blocks of one language. */
function blocks(markdown: string, language: string): string[] {
  return [...markdown.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, "gms"))].map(
    ([, body = ""]) => body,
  );
}

const words = (cell: string): string[] => [...cell.matchAll(/`([^`]+)`/g)].map(([, w = ""]) => w);

test("docs/errors.md has the error table, in order", () => {
  const documented = tableRows(read("docs/errors.md"), "code ").map(([code = "", status = ""]) => [
    words(code)[0],
    Number(status),
  ]);
  expect(documented).toEqual(Object.entries(errorTable).map(([code, kind]) => [code, kind.status]));
});

test("docs/errors.md leads from each code to what docs/troubleshooting.md says of it", () => {
  const links = new Map(
    [...read("docs/errors.md").matchAll(/^\| \[`(.+?)`\]\(troubleshooting\.md#(.+?)\)/gm)].map(
      ([, code, anchor]) => [code, anchor] as const,
    ),
  );
  const headings = read("docs/troubleshooting.md").match(/^## .+$/gm) ?? [];
  const anchors = headings.flatMap((heading) => {
    // As GitHub makes them.
    const anchor = heading
      .slice(3)
      .replaceAll(/[^\w\- ]/g, "")
      .replaceAll(" ", "-");
    return words(heading).map((code) => [code, anchor] as const);
  });
  expect(anchors.length).toBeGreaterThan(15);
  expect(Object.fromEntries(links)).toEqual(Object.fromEntries(anchors));
  expect(anchors.filter(([code]) => !Object.hasOwn(errorTable, code))).toEqual([]);
});

test("every code of static-inject is documented", () => {
  const source = read("src/plugins/static-inject/plugin.ts");
  const codes = new Set([...source.matchAll(/"(static-inject\.[a-z-]+)":/g)].map(([, c]) => c));
  const documented = new Set(read("docs/errors.md").match(/static-inject\.[a-z-]+/g));
  expect(codes.size).toBeGreaterThan(3);
  expect(documented).toEqual(codes);
});

test("every code of aws-sigv4 is documented", () => {
  const sources = find("src/plugins/aws-sigv4/*.ts").map(read).join("\n");
  const reasons = /(?:refuse\(\s*|reason: |kind: |return \{ reason: )"([a-z-]+)"/g;
  const found = [...sources.matchAll(reasons)].map(([, reason]) => `aws-sigv4.${reason}`);
  const documented = new Set(read("docs/errors.md").match(/aws-sigv4\.[a-z-]+/g));
  expect([...documented].filter((code) => !found.includes(code))).toEqual([]);
  expect(documented.size).toBe(10);
});

test("docs/architecture.md has the layer table of the test that holds it", () => {
  const documented = tableRows(read("docs/architecture.md"), "may import").map(
    ([folder = "", imports = "", packages = ""]) => ({
      folder: words(folder)[0],
      imports: imports === "everything" ? ["*"] : words(imports),
      packages: words(packages),
    }),
  );
  expect(documented).toEqual(
    Object.entries(layers).map(([folder, { imports, packages }]) => ({
      folder,
      imports: [...imports],
      packages: [...packages],
    })),
  );
});

test("every decision in docs/adr has a number of its own, in its name and in its heading", () => {
  const pages = find("docs/adr/*.md");
  const numbers = pages.map((page) => Number(/(\d{4})-/.exec(page)?.[1]));
  expect(numbers).toEqual([...new Set(numbers)].toSorted((one, other) => one - other));
  expect(pages.map((page) => Number(/^# (\d+)\. /.exec(read(page))?.[1]))).toEqual(numbers);
});

test("README.md leads to every document", () => {
  const linked = new Set(read("README.md").match(/docs\/[a-z-]+\.md/g));
  expect(find("docs/*.md").filter((path) => !linked.has(path))).toEqual([]);
});

test("docs/plugins.md shows the plugin that runs as an example", () => {
  expect(blocks(read("docs/plugins.md"), "ts")).toContain(read("examples/hello-plugin/hello.ts"));
});

test("docs/embed.md shows the test that runs as an example", () => {
  expect(blocks(read("docs/embed.md"), "ts")).toContain(read("examples/embed/agent.test.ts"));
});

test("docs/plugins.md lists the plugins that can be used", () => {
  const usable = builtinPlugins.filter(({ unavailable }) => unavailable === undefined);
  const documented = tableRows(read("docs/plugins.md"), "what it does").map(
    ([name = ""]) => words(name)[0],
  );
  expect(documented).toEqual(usable.map((definition): string => definition.name));
});

describe("configuration keys", () => {
  const schema = buildJsonSchema([]) as JsonSchema;
  const sections = Object.entries(schema.properties ?? {}).filter(
    ([, section]) => propertiesOf(section) !== undefined,
  );
  const keys = new Set(sections.flatMap(([name, section]) => keysBelow(name, section)));
  const pattern = new RegExp(
    `\`((?:${sections.map(([name]) => name).join("|")})\\.[a-z_.]+)\``,
    "g",
  );

  test("the schema has keys to compare with", () => {
    expect(keys).toContain("limits.max_body");
    expect(keys).toContain("pipeline.outbound.default");
  });

  test.each(documents)("%s names keys that exist", (path) => {
    const named = [...read(path).matchAll(pattern)].map(([, key = ""]) => key);
    const others = (key: string): boolean => key in errorTable || /\.(?:ts|ya?ml|json)$/.test(key);
    expect(named.filter((key) => !keys.has(key) && !others(key))).toEqual([]);
  });

  interface JsonSchema {
    readonly properties?: Readonly<Record<string, JsonSchema>>;
    readonly anyOf?: readonly JsonSchema[];
    readonly $ref?: string;
    readonly $defs?: Readonly<Record<string, JsonSchema>>;
  }

  function propertiesOf(node: JsonSchema): JsonSchema["properties"] {
    const target =
      node.$ref === undefined ? node : schema.$defs?.[node.$ref.replace("#/$defs/", "")];
    return (
      target?.properties ?? target?.anyOf?.map(propertiesOf).find((found) => found !== undefined)
    );
  }

  function keysBelow(prefix: string, node: JsonSchema): string[] {
    return Object.entries(propertiesOf(node) ?? {}).flatMap(([name, child]) => {
      const key = `${prefix}.${name}`;
      return [key, ...keysBelow(key, child)];
    });
  }
});

test("every metric that a document names is in docs/metrics.md", () => {
  // A histogram's series end in _bucket, _sum and _count.
  const metric = /\b(?:authbridge|process|nodejs)_[a-z_]*[a-z]\b/g;
  const known = new Set(
    tableRows(read("docs/metrics.md"), "| name").map(([name = ""]) => words(name)[0]),
  );
  expect(known.size).toBeGreaterThan(20);
  const unknown = documents.flatMap((path) =>
    (read(path).match(metric) ?? [])
      .filter((name) => !known.has(name) && !known.has(name.replace(/_(?:bucket|sum|count)$/, "")))
      .map((name) => `${path}: ${name}`),
  );
  expect(unknown).toEqual([]);
});

describe("configuration files", () => {
  /** Values for the variables that the files ask for. */
  const variables = {
    DEMO_ISSUER: "http://127.0.0.1:1",
    DEMO_CLIENT_SECRET: "secret",
    AGENT_URL: "http://127.0.0.1:8000",
    TOKEN_URL: "http://127.0.0.1:1/token",
    CLIENT_SECRET: "secret",
    API_KEY: "key",
    JUDGE_URL: "http://127.0.0.1:1",
    KEYCLOAK_URL: "http://127.0.0.1:1",
    AGENT_SECRET: "secret",
    TOOLS_PORT: "1",
    LLM_PORT: "1",
    PARENT_URL: "http://127.0.0.1:1",
    READY_URL: "http://127.0.0.1:1/",
    PROXY_RESOURCE: join(root, "examples/corporate-proxy/cluster-proxy.json"),
  };
  const ports = ["AGENT", "REVERSE", "FORWARD", "SESSION", "HEALTH", "STATS"];
  const env = {
    ...variables,
    PROXY_PORT: "0",
    MCP_PORT: "1",
    SITE_PORT: "1",
    INBOUND_PORT: "0",
    OUTBOUND_PORT: "0",
    ...Object.fromEntries(ports.map((name, at) => [`DEMO_${name}_PORT`, `${at + 1}`])),
  };
  /** Everything that is wrong with a file, as `authbridge-proxy check` finds it. */
  async function problemsOf(file: string): Promise<string[]> {
    const loaded = await loadConfig(file, { lenient: false, env });
    if (loaded.kind === "rejected") return loaded.problems.map(formatProblem);
    const metrics = new Metrics({ version: "test", generation: () => 0 });
    const services = {
      log: createLogger("silent"),
      metrics,
      ownListeners: new OwnListeners(),
      env: process.env,
      carried: new CarriedState(),
      definitions: await definitionsFor(loaded),
    };
    const built = await buildRuntime(loaded.config, 0, services, { start: false });
    metrics.close();
    if (built.kind === "failed") return buildProblems(loaded, built.problems).map(formatProblem);
    await built.runtime.close();
    return [];
  }

  /** The file itself, or a copy that looks for the operator's files where they can be in a test. */
  function inTest(path: string): string {
    const text = read(path);
    if (!text.includes("/etc/authbridge/")) return join(root, path);
    for (const [, name = ""] of text.matchAll(/\/etc\/authbridge\/([\w-]+\.pem)/g)) {
      writeFileSync(join(scratch, name), rootCertificates[0] ?? "");
    }
    const copy = join(scratch, path.replaceAll("/", "-"));
    writeFileSync(copy, text.replaceAll("/etc/authbridge", scratch));
    return copy;
  }

  const yaml = find("config/*.yaml", "examples/**/*.yaml");
  const isConfig = (path: string): boolean => /^(?:listener|pipeline):/m.test(read(path));

  test.each(yaml.filter(isConfig))("%s loads", async (path) => {
    expect(await problemsOf(inTest(path))).toEqual([]);
  });

  test.each(yaml.filter(isConfig))("%s denies what nothing allowed on the way out", (path) => {
    const { listener, pipeline } = parse(read(path)) as {
      listener?: { roles?: string[] };
      pipeline: { outbound?: { default?: string } };
    };
    if (listener?.roles?.includes("forward") === false) return;
    expect(pipeline.outbound?.default).toBe("deny");
  });

  test.each(yaml.filter(isConfig))("%s names its schema for editors", (path) => {
    const named = /^# yaml-language-server: \$schema=(\S+)/.exec(read(path))?.[1] ?? "";
    expect(resolve(dirname(path), named)).toBe(resolve("config/schema.json"));
  });

  const isCases = (path: string): boolean => /^cases:/m.test(read(path));

  test.each(yaml.filter((path) => !isConfig(path) && !isCases(path)))(
    "%s is a routes file",
    (path) => {
      expect(parseRoutesFile(read(path)).length).toBeGreaterThan(0);
    },
  );

  const shown = blocks(read("README.md"), "yaml");

  test("README.md shows one file for each of the three uses", () => {
    expect(shown).toHaveLength(3);
    for (const text of shown) expect(text.trim().split("\n").length).toBeLessThanOrEqual(10);
  });

  test.each(shown.map((text, index) => [index + 1, text] as const))(
    "file %i of README.md loads",
    async (index, text) => {
      const file = join(scratch, `readme-${index}.yaml`);
      writeFileSync(file, text);
      expect(await problemsOf(file)).toEqual([]);
    },
  );
});

describe("links and paths", () => {
  test.each(documents)("%s links to files that exist", (path) => {
    const links = [...read(path).matchAll(/\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)/g)];
    const missing = links
      .map(([, target = ""]) => join(dirname(path), target))
      .filter((target) => !existsSync(join(root, target)));
    expect(missing).toEqual([]);
  });

  test.each(documents)("%s names source and test files that exist", (path) => {
    const named = read(path).match(/(?<=`)[\w-]+\/[\w./-]+\.(?:ts|ya?ml)(?=`)/g) ?? [];
    // docs/architecture.md speaks of src/ only and leaves it out.
    const exists = (name: string): boolean =>
      existsSync(join(root, name)) || existsSync(join(root, "src", name));
    expect(named.filter((name) => !exists(name))).toEqual([]);
  });

  test("the README's commands are scripts of package.json", () => {
    const { scripts } = JSON.parse(read("package.json")) as { scripts: Record<string, string> };
    const used = [...read("README.md").matchAll(/npm run ([a-z:]+)/g)].map(([, name = ""]) => name);
    expect(used).toContain("demo");
    expect(used.filter((name) => scripts[name] === undefined)).toEqual([]);
  });
});

describe("Dockerfile", () => {
  const copied = [...read("Dockerfile").matchAll(/^COPY (?!--from)(.+)$/gm)]
    .flatMap(([, line = ""]) => line.split(/\s+/).slice(0, -1))
    .filter((path) => path !== "");

  test("copies files that exist and that .dockerignore lets through", () => {
    const allowed = read(".dockerignore").match(/(?<=^!).+$/gm) ?? [];
    expect(copied).toContain("src");
    expect(copied.filter((path) => !existsSync(join(root, path)))).toEqual([]);
    expect(copied.filter((path) => !allowed.some((one) => one === path))).toEqual([]);
  });

  test("runs as somebody else than root, from the compiled program", () => {
    expect(read("Dockerfile")).toMatch(/^USER 1337/m);
    expect(read("Dockerfile")).toContain('ENTRYPOINT ["node", "/app/dist/main.js"]');
  });
});

test("a document that a message names is part of what is installed", () => {
  const { files } = JSON.parse(read("package.json")) as { readonly files: readonly string[] };
  const named = new Set(
    find("src/**/*.ts").flatMap((path) => read(path).match(/docs\/[a-z-]+\.md/g) ?? []),
  );
  expect(named.size).toBeGreaterThan(0);
  expect([...named].filter((path) => !existsSync(new URL(`../${path}`, import.meta.url)))).toEqual(
    [],
  );
  expect(files).toContain("docs");
});
