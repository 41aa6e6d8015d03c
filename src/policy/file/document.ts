/** Reads a policy document of the OpenShell format: every problem at once, or entries that are ready to compile. */
import { GlobTable } from "../../pattern/glob.ts";
import {
  type Dialect,
  defaultDialect,
  type PolicyDocument,
  type PolicyEntry,
} from "../endpoint.ts";
import { findAmbiguities } from "./ambiguity.ts";
import { type EndpointContext, fullSupport, type Support } from "./endpoint-context.ts";
import { readCallers, readEndpoint } from "./endpoint-reader.ts";
import { Node } from "./node.ts";
import { type KeyPath, type Locate, type Problem, Problems } from "./problem.ts";
import { readGlob } from "./rule-reader.ts";

/** A parsed file: the value and where its parts stand. */
export interface PolicySource {
  readonly value: unknown;
  readonly locate?: Locate;
}

/** How a document is read. */
export interface ReadOptions {
  readonly dialect?: Partial<Dialect>;
  readonly support?: Support;
  /**
   * Overlapping endpoints that contradict each other refuse the document (`refuse`, the default), or the first one
   * in byte order of entry keys wins (`first`).
   */
  readonly ambiguity?: "refuse" | "first";
  /** `true`: the value is the mapping of `network_policies` itself. */
  readonly bare?: boolean;
}

/** A document, or why there is none; warnings come with both. */
export interface ReadResult {
  readonly document: PolicyDocument | undefined;
  readonly problems: readonly Problem[];
}

/** Sections about the process sandbox: another component reads them from the same file and enforces them. */
const sandboxSections = ["filesystem_policy", "landlock", "process"];

/** Reads a document. Never throws, whatever the value. */
export function readPolicyDocument(source: PolicySource, options: ReadOptions = {}): ReadResult {
  const problems = new Problems(source.locate);
  const root = new Node(source.value, [], problems);
  const policies = options.bare === true ? root : readTop(root);
  const context: EndpointContext = {
    dialect: { ...defaultDialect, ...options.dialect },
    support: options.support ?? fullSupport,
    globs: new GlobTable(),
  };
  const paths = new Map<object, KeyPath>();
  const entries = (policies?.entries() ?? [])
    .map(([key, node]) => readEntry(key, node, context, paths))
    .sort((one, other) => Buffer.compare(Buffer.from(one.key), Buffer.from(other.key)));
  const document = { entries };
  if (!problems.hasErrors && options.ambiguity !== "first") {
    for (const { endpoint, message } of findAmbiguities(document)) {
      problems.error(paths.get(endpoint) ?? [], message);
    }
  }
  return { document: problems.hasErrors ? undefined : document, problems: problems.list };
}

function readTop(root: Node): Node | undefined {
  const fields = root.fields({
    known: ["version", "network_policies", "network_middlewares", ...sandboxSections],
  });
  fields.get("version")?.integer(0, 0xff_ff_ff_ff);
  for (const section of sandboxSections) {
    fields
      .get(section)
      ?.warning(
        `'${section}' is for the process sandbox; this proxy enforces the network part only`,
      );
  }
  const middlewares = fields.get("network_middlewares");
  if (middlewares !== undefined && middlewares.entries().length > 0) {
    middlewares.error("'network_middlewares' is not enforced by this proxy: use plugins instead");
  }
  return fields.get("network_policies");
}

function readEntry(
  key: string,
  node: Node,
  context: EndpointContext,
  paths: Map<object, KeyPath>,
): PolicyEntry {
  const fields = node.fields({ known: ["name", "endpoints", "binaries", "callers"] });
  const name = fields.get("name")?.string() ?? key;
  const endpointItems = fields.get("endpoints")?.items() ?? [];
  if (endpointItems.length === 0) node.warning("an entry without endpoints never matches");
  const endpoints = endpointItems.flatMap((item, index) => {
    const endpoint = readEndpoint(item, `endpoints[${index}]`, context);
    if (endpoint === undefined) return [];
    paths.set(endpoint, item.path);
    return [endpoint];
  });
  const binaryItems = fields.get("binaries")?.items() ?? [];
  if (binaryItems.length === 0) {
    const whom = context.dialect.emptyBinaries === "any" ? "any process" : "no process";
    node.warning(`an entry without binaries admits ${whom}`);
  }
  const binaries = binaryItems.flatMap((item) => readBinary(item, context.globs) ?? []);
  const callers = readCallers(fields.get("callers"));
  return { key, name, endpoints, binaries, callers };
}

function readBinary(node: Node, globs: GlobTable): string | undefined {
  const fields = node.fields({ known: ["path", "harness"] });
  fields.get("harness")?.warning("'harness' has no effect in this file format");
  const pathNode = fields.get("path");
  if (pathNode === undefined) return node.error("a binary needs path");
  const path = pathNode.string();
  if (path === undefined) return undefined;
  if (path === "") return pathNode.error("path must not be empty");
  if (path.includes("*") && readGlob(pathNode, ["/"], globs) === undefined) return undefined;
  return path;
}
