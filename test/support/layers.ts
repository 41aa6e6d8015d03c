/** The layer rule of docs/architecture.md as data, and the check that a source file obeys it. */

interface Layer {
  /** Folders and ground files of src/ that may be imported, besides the layer itself. */
  readonly imports: readonly string[];
  readonly packages: readonly string[];
  /** Built-in modules that must not be imported. */
  readonly forbiddenBuiltins?: readonly string[];
}

const ground = ["errors", "duration"];
const dialling = [
  "node:net",
  "node:tls",
  "node:dns",
  "node:dns/promises",
  "node:http",
  "node:https",
  "node:http2",
  "node:dgram",
];

/** One entry per folder, and per file that stands directly in src/. */
export const layers: Readonly<Record<string, Layer>> = {
  errors: { imports: [], packages: [] },
  duration: { imports: [], packages: [] },
  "schema-words": { imports: [], packages: ["zod"] },
  secret: { imports: ["errors"], packages: [] },
  net: { imports: ground, packages: ["koffi"] },
  http: { imports: ground, packages: [], forbiddenBuiltins: dialling },
  config: {
    imports: ["schema-words", ...ground],
    packages: ["zod", "yaml"],
    forbiddenBuiltins: dialling.filter((name) => name !== "node:net"),
  },
  telemetry: {
    imports: ["http", "secret", ...ground],
    packages: [
      "pino",
      "prom-client",
      "@opentelemetry/api",
      "@opentelemetry/otlp-transformer",
      "@opentelemetry/resources",
      "@opentelemetry/sdk-metrics",
      "@opentelemetry/sdk-trace",
    ],
    forbiddenBuiltins: dialling,
  },
  inference: { imports: ["http", ...ground], packages: [], forbiddenBuiltins: dialling },
  policy: { imports: ["net", ...ground], packages: [], forbiddenBuiltins: dialling },
  toolpolicy: {
    imports: ["policy", "net", "http", ...ground],
    packages: ["ajv", "re2js"],
    forbiddenBuiltins: dialling,
  },
  tlsbridge: { imports: ["net", ...ground], packages: ["node-forge"] },
  oauth: { imports: ["secret", ...ground], packages: ["jose"], forbiddenBuiltins: dialling },
  opa: {
    imports: ground,
    packages: ["@open-policy-agent/opa-wasm", "yaml"],
    forbiddenBuiltins: dialling,
  },
  pipeline: {
    imports: ["net", "http", "telemetry", "secret", "schema-words", ...ground],
    packages: ["zod"],
    forbiddenBuiltins: dialling,
  },
  session: {
    imports: ["pipeline", "http", ...ground],
    packages: ["re2js"],
    forbiddenBuiltins: dialling,
  },
  upstream: { imports: ["pipeline", "net", "http", "secret", ...ground], packages: ["undici"] },
  plugins: {
    imports: [
      "pipeline",
      "policy",
      "toolpolicy",
      "opa",
      "oauth",
      "inference",
      "net",
      "http",
      "secret",
      ...ground,
    ],
    packages: ["zod", "jose", "yaml"],
    forbiddenBuiltins: dialling,
  },
  proxy: {
    imports: [
      "pipeline",
      "session",
      "upstream",
      "tlsbridge",
      "net",
      "http",
      "telemetry",
      ...ground,
    ],
    packages: ["undici"],
  },
  listener: {
    imports: ["proxy", "pipeline", "net", "http", "telemetry", ...ground],
    packages: ["http-proxy-3"],
  },
  admin: { imports: ["session", "pipeline", "telemetry", "secret", ...ground], packages: [] },
  app: { imports: ["*"], packages: ["zod", "yaml"] },
  main: { imports: ["app", "config", "plugins", "telemetry", ...ground], packages: [] },
};

const specifiers =
  /^(?:import|export)\s*(?:type\s)?(?:[\w*{}\s,$]+?\sfrom\s*)?["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']\s*\)/g;

/** What is wrong with the imports of one file; `path` is relative to src/, e.g. `plugins/x.ts`. */
export function layerViolations(path: string, source: string): string[] {
  const own = layerOf(path);
  const layer = layers[own];
  if (layer === undefined) return [`${path}: "${own}" is not a layer`];
  const violations: string[] = [];
  for (const [, plain, dynamic] of source.matchAll(specifiers)) {
    const specifier = plain ?? dynamic ?? "";
    const reason = objection(own, layer, path, specifier);
    if (reason !== undefined) violations.push(`${path} imports ${specifier}: ${reason}`);
  }
  return violations;
}

function layerOf(path: string): string {
  const [first = ""] = path.split("/");
  return first.replace(/\.ts$/, "");
}

function objection(own: string, layer: Layer, path: string, specifier: string): string | undefined {
  if (specifier.startsWith("node:")) {
    return layer.forbiddenBuiltins?.includes(specifier) === true
      ? "this layer opens no connections"
      : undefined;
  }
  if (!specifier.startsWith(".")) {
    const name = specifier.startsWith("@")
      ? specifier.split("/").slice(0, 2).join("/")
      : (specifier.split("/")[0] ?? "");
    return layer.packages.includes(name) ? undefined : "this package does not belong to this layer";
  }
  if (!/^(\.\/[\w-]+|\.\.\/[\w-]+|\.\/[\w-]+\/[\w-]+|\.\.\/[\w-]+\/[\w-]+)\.ts$/.test(specifier))
    return "imports are two levels deep at most";
  const target = new URL(specifier, `file:///src/${path}`).pathname.replace("/src/", "");
  const builtin = target === "net/node-http.ts" ? "node:http" : "";
  if (layer.forbiddenBuiltins?.includes(builtin) === true) return "this layer opens no connections";
  const folder = layerOf(target);
  if (folder === own || layer.imports.includes("*") || layer.imports.includes(folder))
    return undefined;
  return `${own}/ stands below ${folder}/`;
}
