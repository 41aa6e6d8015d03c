/** The layer rule of docs/architecture.md as data, and the check that a source file obeys it. */

interface Layer {
  /** Folders and ground files of src/ that may be imported, besides the layer itself. */
  readonly imports: readonly string[];
  readonly packages: readonly string[];
  /** Built-in modules that must not be imported. */
  readonly forbiddenBuiltins?: readonly string[];
}

const ground = ["errors", "duration", "bounded-map"];
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

/** What every plugin may use. */
const pluginImports = [
  "base32",
  "plugins",
  "dlp",
  "pipeline",
  "protocols",
  "opa",
  "oauth",
  "policy",
  "policy/file",
  "policy/tools",
  "pattern",
  "files",
  "yaml",
  "net",
  "net/kernel",
  "http",
  "grpc",
  "secret",
  "secrets",
  "spiffe",
  ...ground,
];
const proxyImports = [
  "pipeline",
  "wire",
  "spiffe",
  "session",
  "upstream",
  "tlsbridge",
  "net",
  "net/kernel",
  "http",
  "telemetry",
  ...ground,
];

/**
 * One entry per room: a folder, a folder in a folder, or a file that stands directly in src/. `plugins/*` is every
 * folder of a plugin: none of them imports another one, but all may import `plugins/credentials` and `plugins/parsers`.
 */
export const layers: Readonly<Record<string, Layer>> = {
  errors: { imports: [], packages: [] },
  duration: { imports: [], packages: [] },
  "bounded-map": { imports: [], packages: [] },
  base32: { imports: [], packages: [] },
  yaml: {
    imports: ground,
    packages: ["zod", "yaml"],
    forbiddenBuiltins: dialling,
  },
  secret: { imports: ["errors"], packages: [] },
  dlp: { imports: ["base32", "secret", ...ground], packages: [], forbiddenBuiltins: dialling },
  files: { imports: ground, packages: [], forbiddenBuiltins: dialling },
  spiffe: { imports: ["files", "secret", ...ground], packages: [], forbiddenBuiltins: dialling },
  net: { imports: ground, packages: [] },
  mtls: { imports: ["pipeline", "spiffe", ...ground], packages: [] },
  "net/kernel": { imports: ["net", ...ground], packages: ["koffi"] },
  http: { imports: ["secret", ...ground], packages: [], forbiddenBuiltins: dialling },
  wire: { imports: ["net", "http", ...ground], packages: [] },
  grpc: { imports: ["http", ...ground], packages: [] },
  pattern: { imports: ["net", "http", ...ground], packages: [], forbiddenBuiltins: dialling },
  config: {
    imports: ["files", "yaml", ...ground],
    packages: ["zod"],
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
  policy: { imports: ["net", "pattern", ...ground], packages: [], forbiddenBuiltins: dialling },
  "policy/file": {
    imports: ["policy", "policy/tools", "net", "pattern", "yaml", ...ground],
    packages: ["zod"],
    forbiddenBuiltins: dialling,
  },
  "policy/tools": {
    imports: ["policy", "net", "http", "pattern", ...ground],
    packages: ["ajv", "re2js"],
    forbiddenBuiltins: dialling,
  },
  tlsbridge: { imports: ["net", "files", "secret", ...ground], packages: ["node-forge"] },
  "spiffe/workload": {
    imports: ["spiffe", "oauth", "grpc", "files", "net", "secret", ...ground],
    packages: [],
  },
  oauth: {
    imports: ["http", "secret", "spiffe", ...ground],
    packages: ["jose"],
    forbiddenBuiltins: dialling,
  },
  secrets: {
    imports: ["oauth", "spiffe", "files", "http", "secret", ...ground],
    packages: ["jose"],
    forbiddenBuiltins: dialling,
  },
  opa: {
    imports: ["files", "http", ...ground],
    packages: ["@open-policy-agent/opa-wasm", "yaml"],
    forbiddenBuiltins: dialling,
  },
  state: { imports: ground, packages: ["@redis/client"] },
  pipeline: {
    imports: [
      "net",
      "net/kernel",
      "http",
      "state",
      "telemetry",
      "secret",
      "spiffe",
      "yaml",
      ...ground,
    ],
    packages: ["zod"],
    forbiddenBuiltins: dialling,
  },
  approval: {
    imports: ["pipeline", "http", "state", "telemetry", ...ground],
    packages: [],
    forbiddenBuiltins: dialling,
  },
  protocols: {
    imports: ["pipeline", "http", ...ground],
    packages: [],
    forbiddenBuiltins: dialling,
  },
  session: {
    imports: ["pipeline", "http", ...ground],
    packages: ["re2js"],
    forbiddenBuiltins: dialling,
  },
  receipts: {
    imports: ["session", "oauth", "files", "net", ...ground],
    packages: [],
    forbiddenBuiltins: dialling,
  },
  "upstream/parent": { imports: ["net", "secret", ...ground], packages: [] },
  upstream: {
    imports: [
      "upstream/parent",
      "mtls",
      "pipeline",
      "wire",
      "grpc",
      "pattern",
      "net",
      "http",
      "secret",
      "spiffe",
      ...ground,
    ],
    packages: ["undici"],
  },
  plugins: {
    imports: ["plugins/*", "plugins/parsers", "pipeline", "pattern", ...ground],
    packages: ["zod"],
    forbiddenBuiltins: dialling,
  },
  "plugins/credentials": {
    imports: pluginImports,
    packages: ["zod"],
    forbiddenBuiltins: dialling,
  },
  "plugins/parsers": { imports: pluginImports, packages: ["zod"], forbiddenBuiltins: dialling },
  "plugins/*": {
    imports: ["plugins/credentials", "plugins/parsers", ...pluginImports],
    packages: ["zod"],
    forbiddenBuiltins: dialling,
  },
  "proxy/flow": { imports: proxyImports, packages: [] },
  "proxy/exchange": { imports: ["proxy/flow", ...proxyImports], packages: [] },
  "proxy/tunnel": { imports: ["proxy/flow", "proxy/exchange", ...proxyImports], packages: [] },
  listener: {
    imports: [
      "wire",
      "proxy/flow",
      "proxy/exchange",
      "proxy/tunnel",
      "mtls",
      "pipeline",
      "spiffe",
      "net",
      "net/kernel",
      "http",
      "telemetry",
      ...ground,
    ],
    packages: [],
  },
  "app/trust": {
    imports: ["files", "http", "oauth", "pattern", "secret", "spiffe", ...ground],
    packages: [],
  },
  admin: {
    imports: ["approval", "session", "receipts", "pipeline", "telemetry", "secret", ...ground],
    packages: [],
  },
  "app/chaining": {
    imports: [
      "upstream/parent",
      "app/trust",
      "config",
      "files",
      "pattern",
      "net",
      "secret",
      "telemetry",
      "upstream",
      "yaml",
      ...ground,
    ],
    packages: ["zod", "yaml"],
  },
  "app/egress": {
    imports: ["config", "net", "pipeline", "telemetry", "upstream", ...ground],
    packages: [],
  },
  "app/receipts": {
    imports: [
      "yaml",
      "receipts",
      "admin",
      "proxy/flow",
      "pipeline",
      "pattern",
      "session",
      "config",
      "files",
      "telemetry",
      ...ground,
    ],
    packages: [],
    forbiddenBuiltins: dialling,
  },
  "app/approvals": {
    imports: [
      "approval",
      "admin",
      "config",
      "files",
      "http",
      "pipeline",
      "session",
      "state",
      "telemetry",
      ...ground,
    ],
    packages: [],
    forbiddenBuiltins: dialling,
  },
  "app/kills": {
    imports: ["files", "http", "net", "pipeline", "state", "telemetry", ...ground],
    packages: [],
  },
  app: {
    imports: [
      "app/kills",
      "app/receipts",
      "app/approvals",
      "approval",
      "app/chaining",
      "app/egress",
      "app/trust",
      "mtls",
      "spiffe/workload",
      "admin",
      "listener",
      "plugins",
      "config",
      "files",
      "yaml",
      "pattern",
      "secret",
      "state",
      "tlsbridge",
      "oauth",
      "proxy/flow",
      "proxy/exchange",
      "proxy/tunnel",
      ...proxyImports.filter((name) => name !== "tlsbridge"),
    ],
    packages: ["zod", "yaml"],
  },
  threads: { imports: ground, packages: [], forbiddenBuiltins: dialling },
  crew: {
    imports: [
      "pipeline",
      "app",
      "admin",
      "listener",
      "config",
      "yaml",
      "session",
      "state",
      "telemetry",
      "threads",
      "tlsbridge",
      "proxy/flow",
      ...ground,
    ],
    packages: [],
    forbiddenBuiltins: dialling,
  },
  embed: {
    imports: [
      "app",
      "cli",
      "config",
      "http",
      "pipeline",
      "plugins",
      "session",
      "telemetry",
      "yaml",
      ...ground,
    ],
    packages: ["zod"],
    forbiddenBuiltins: dialling,
  },
  "cli/arguments": {
    imports: [
      "cli",
      "cli/audit",
      "cli/approve",
      "cli/doctor",
      "cli/learn",
      "cli/rehearsal",
      "cli/run",
      "yaml",
      ...ground,
    ],
    packages: [],
  },
  cli: { imports: ["*"], packages: ["zod", "yaml"] },
  "cli/audit": { imports: ["cli", "receipts", "files", ...ground], packages: [] },
  "cli/doctor": { imports: ["*"], packages: ["zod", "yaml"] },
  "cli/approve": { imports: ["cli", "http", ...ground], packages: [] },
  "cli/enforce": { imports: ["cli", ...ground], packages: [] },
  "cli/learn": { imports: ["*"], packages: ["yaml"] },
  "cli/rehearsal": { imports: ["*"], packages: ["zod", "yaml"] },
  "cli/run": { imports: ["*"], packages: [] },
  main: {
    imports: ["cli", "cli/arguments", ...ground],
    packages: [],
  },
  "serving-thread": { imports: ["cli", "crew", ...ground], packages: [] },
};

const specifiers =
  /^(?:import|export)\s*(?:type\s)?(?:[\w*{}\s,$]+?\sfrom\s*)?["']([^"']+)["']|\bimport\(\s*["']([^"']+)["']\s*\)/gm;

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

/** The room of a file, as the table names it. */
export function layerOf(path: string): string {
  const room = path.includes("/")
    ? path.slice(0, path.lastIndexOf("/"))
    : path.replace(/\.ts$/, "");
  if (Object.hasOwn(layers, room)) return room;
  return room.startsWith("plugins/") ? "plugins/*" : room;
}

/** Rooms that stand above cli/: only the table of commands looks into those with commands. */
const commandRooms: ReadonlySet<string> = new Set([
  "cli/audit",
  "cli/approve",
  "cli/doctor",
  "cli/enforce",
  "cli/learn",
  "cli/rehearsal",
  "cli/run",
  "cli/arguments",
]);

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
  if (!/^(?:\.|\.\.|\.\.\/\.\.)(?:\/[\w-]+){1,3}\.ts$/.test(specifier))
    return "an import names a file of src/, two folders deep at most";
  const target = new URL(specifier, `file:///src/${path}`).pathname.replace("/src/", "");
  const builtin = target === "net/node-http.ts" ? "node:http" : "";
  if (layer.forbiddenBuiltins?.includes(builtin) === true) return "this layer opens no connections";
  const folder = layerOf(target);
  if (own === "plugins/*" && folder === "plugins/*" && folderOf(target) !== folderOf(path))
    return "a plugin does not import another plugin";
  if (own === "cli" && commandRooms.has(folder)) return "the rooms of commands stand above cli/";
  if (folder === own || layer.imports.includes("*") || layer.imports.includes(folder))
    return undefined;
  return `${own}/ stands below ${folder}/`;
}

function folderOf(path: string): string {
  return path.slice(0, path.lastIndexOf("/"));
}
