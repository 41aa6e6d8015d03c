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
import { judge, type Node } from "./node.ts";
import type { KeyPath } from "../../yaml/problem.ts";
import {
  type EntrySource,
  networkPolicies,
  policySchema,
  type PolicyFile,
  sandboxSections,
} from "./schema.ts";
import { type Locate, type Problem, Problems } from "./problem.ts";
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

/** Reads a document. Never throws, whatever the value. */
export function readPolicyDocument(source: PolicySource, options: ReadOptions = {}): ReadResult {
  const problems = new Problems(source.locate);
  const top = options.bare === true ? undefined : judge(policySchema, source.value, problems);
  const policies =
    top === undefined ? judge(networkPolicies, source.value, problems) : readTop(top);
  const context: EndpointContext = {
    dialect: { ...defaultDialect, ...options.dialect },
    support: options.support ?? fullSupport,
    globs: new GlobTable(),
  };
  const paths = new Map<object, KeyPath>();
  const entries = (policies?.entries() ?? [])
    .map(([key, node]) => readEntry(key, node, context, paths))
    .sort((one, other) => Buffer.compare(Buffer.from(one.key), Buffer.from(other.key)));
  (top ?? policies)?.tellFaults();
  const document = { entries };
  if (!problems.hasErrors && options.ambiguity !== "first") {
    for (const { endpoint, message } of findAmbiguities(document)) {
      problems.error(paths.get(endpoint) ?? [], message);
    }
  }
  return { document: problems.hasErrors ? undefined : document, problems: problems.list };
}

function readTop(root: Node<PolicyFile>): Node<Record<string, EntrySource>> | undefined {
  for (const section of sandboxSections) {
    root
      .at(section)
      ?.warning(
        `'${section}' is for the process sandbox; this proxy enforces the network part only`,
      );
  }
  return root.at("network_policies");
}

function readEntry(
  key: string,
  node: Node<EntrySource>,
  context: EndpointContext,
  paths: Map<object, KeyPath>,
): PolicyEntry {
  const endpointItems = node.at("endpoints")?.items() ?? [];
  if (endpointItems.length === 0) node.warning("an entry without endpoints never matches");
  const endpoints = endpointItems.flatMap((item, index) => {
    const endpoint = readEndpoint(item, `endpoints[${index}]`, context);
    if (endpoint === undefined) return [];
    paths.set(endpoint, item.path);
    return [endpoint];
  });
  const binaryItems = node.at("binaries")?.items() ?? [];
  if (binaryItems.length === 0) {
    const whom = context.dialect.emptyBinaries === "any" ? "any process" : "no process";
    node.warning(`an entry without binaries admits ${whom}`);
  }
  const binaries = binaryItems.flatMap((item) => {
    item.at("harness")?.warning("'harness' has no effect in this file format");
    const path = item.at("path");
    if (path?.value?.includes("*") === true) readGlob(path, ["/"], context.globs);
    return path?.value ?? [];
  });
  return { key, name: node.get("name") ?? key, endpoints, binaries, callers: readCallers(node) };
}
