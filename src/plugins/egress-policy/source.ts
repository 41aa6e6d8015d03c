/** Makes a policy of a configuration and of the text of its file: all of it or, with every problem named, none of it. */
import { readSmallFile } from "../../files/watched-file.ts";
import { isObject } from "../../http/json-access.ts";
import { readAllowlist } from "../../policy/file/allowlist-reader.ts";
import { CombinedPolicy } from "../../policy/combined-policy.ts";
import { readPolicyDocument } from "../../policy/file/document.ts";
import type { Dialect } from "../../policy/endpoint.ts";
import type { Support } from "../../policy/file/endpoint-context.ts";
import { type Problem, problemText } from "../../policy/file/problem.ts";
import { PolicyRules } from "../../policy/rules.ts";
import { type ConfigProblem, PluginConfigError } from "../../pipeline/plugin.ts";
import { YamlDocument } from "../../yaml/document.ts";
import { type KeyPath, type Position } from "../../yaml/problem.ts";
import type { EgressPolicyConfig } from "./config.ts";

/** A policy and the warnings about it. */
export interface MadePolicy {
  readonly policy: CombinedPolicy;
  readonly warnings: readonly string[];
}

/** What this proxy does for the features of the format that policy/ alone cannot enforce. */
const support: Support = { allowedIps: true, tlsSkip: true };

/** Of a policy file: 10,000 endpoints take about 2 MiB. */
export const maxPolicyBytes = 16 * 1024 * 1024;

/** Problems that one Error spells out. */
const maxListed = 50;

/** Makes the policy; throws a {@link PluginConfigError} with every problem. `fileText` is that of `policy_file`. */
export function makePolicy(config: EgressPolicyConfig, fileText?: string): MadePolicy {
  const dialect: Dialect = {
    emptyBinaries: config.empty_binaries,
    unresolvedIdentity: config.unresolved_identity,
    enforcementDefault: config.enforcement_default,
    headMatchesGet: config.head_matches_get,
  };
  const notes: Notes = { errors: [], warnings: [] };
  const rules = makeRules(config, dialect, fileText, notes);
  const { allow, deny } = config;
  const { allowlist, problems } = readAllowlist({
    allow,
    deny,
    headMatchesGet: config.head_matches_get,
  });
  note(problems, undefined, notes);
  const { errors, warnings } = notes;
  if (errors.length > maxListed) {
    errors.splice(maxListed, errors.length, { path: [], message: "and more problems" });
  }
  if (errors.length > 0) throw new PluginConfigError(errors);
  const isListed = allow !== undefined || deny !== undefined;
  const policy = new CombinedPolicy({ rules, allowlist: isListed ? allowlist : undefined });
  return { policy, warnings };
}

function makeRules(
  config: EgressPolicyConfig,
  dialect: Dialect,
  fileText: string | undefined,
  notes: Notes,
): PolicyRules | undefined {
  const { policy_file: file, network_policies: inline } = config;
  const isListOnly = fileText === undefined && inline === undefined;
  // Without entries the rules still ask who the caller is, and leave the host to the lists.
  if (isListOnly && dialect.unresolvedIdentity === "sentinel") return undefined;
  const parsed = fileText === undefined ? undefined : parsePolicyText(fileText, file ?? "");
  const { document, problems } = readPolicyDocument(
    {
      value: merged(parsed?.value ?? {}, inline ?? {}),
      ...(parsed === undefined
        ? {}
        : { locate: (path) => (isInline(path, inline) ? undefined : parsed.locate(path)) }),
    },
    { dialect, support },
  );
  note(problems, file, notes);
  return document === undefined ? undefined : new PolicyRules(document, dialect);
}

/** Both sets of entries in one document; a key that is in both is an Error. */
function merged(value: unknown, inline: Readonly<Record<string, unknown>>): unknown {
  if (Object.keys(inline).length === 0 || !isObject(value)) return value;
  const own = value["network_policies"] ?? {};
  if (!isObject(own)) return value;
  const twice = Object.keys(inline).find((key) => Object.hasOwn(own, key));
  if (twice !== undefined) {
    const message = `'${twice}' is in the policy file and in the configuration`;
    throw new PluginConfigError([{ path: ["network_policies", twice], message }]);
  }
  return { ...value, network_policies: { ...own, ...inline } };
}

function isInline(path: KeyPath, inline: Readonly<Record<string, unknown>> | undefined): boolean {
  const key = path[1];
  return inline !== undefined && typeof key === "string" && Object.hasOwn(inline, key);
}

interface Notes {
  readonly errors: ConfigProblem[];
  readonly warnings: string[];
}

function note(problems: readonly Problem[], file: string | undefined, notes: Notes): void {
  for (const problem of problems) {
    const isInFile = problem.line !== undefined;
    const text = problemText(problem, isInFile ? file : undefined);
    if (problem.severity === "warning") notes.warnings.push(text);
    else if (isInFile) notes.errors.push({ path: ["policy_file"], message: text });
    else notes.errors.push({ path: problem.keyPath, message: problem.message });
  }
}

/** Keys of the entries that a configuration and its file have; none of a part that cannot be read. */
export function policyKeys(config: unknown): readonly string[] {
  if (!isObject(config)) return [];
  const inline = config["network_policies"];
  const file = config["policy_file"];
  const keys = isObject(inline) ? Object.keys(inline) : [];
  if (typeof file !== "string") return keys;
  try {
    const { value } = parsePolicyText(readSmallFile(file, maxPolicyBytes), file);
    const entries = isObject(value) ? value["network_policies"] : undefined;
    return isObject(entries) ? [...keys, ...Object.keys(entries)] : keys;
  } catch {
    // A file that is missing or broken has no keys that could collide.
    return keys;
  }
}

/** A parsed policy file. */
export interface PolicyText {
  readonly value: unknown;
  locate(path: KeyPath): Position;
}

/** Parses the text of a policy file; throws a {@link PluginConfigError} with every syntax error and its place. */
export function parsePolicyText(text: string, file: string): PolicyText {
  const document = new YamlDocument(text);
  if (document.problems.length > 0) {
    const listed = document.problems.slice(0, maxListed).map(({ line, column, message }) => ({
      path: ["policy_file"],
      message: `${file}:${line}:${column}: ${message}`,
    }));
    throw new PluginConfigError(listed);
  }
  return { value: document.value ?? {}, locate: (path) => document.locate(path) };
}
