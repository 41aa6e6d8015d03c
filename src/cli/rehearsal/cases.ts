/** Files of `policy test`: which policy is asked, what is asked, and what is expected; read with a place for each mistake. */
import { Node } from "../../policy/file/node.ts";
import { Problems, problemText } from "../../policy/file/problem.ts";
import { parsePolicyText, type PolicyText } from "../../plugins/egress-policy/source.ts";
import type { ProbeSource } from "../arguments/probe-source.ts";
import { type Probe, readProbe } from "./probe.ts";

/** What one case expects; what is absent is not compared. */
export interface Expectation {
  readonly verdict: "allow" | "audit" | "deny";
  readonly plugin?: string;
  readonly entry?: string;
  readonly rule?: string;
  /** A part of the reason. */
  readonly reason?: string;
  readonly status?: number;
  /** Path and query as they would be sent. */
  readonly sent?: string;
}

/** One case. */
export interface PolicyCase {
  readonly name: string;
  readonly probe: Probe;
  readonly expected: Expectation;
}

/** Where the policy of a file of cases is. */
export type PolicySubject =
  | { readonly kind: "config"; readonly file: string }
  | {
      readonly kind: "policy";
      readonly key: "policy" | "egress_policy";
      readonly config: Readonly<Record<string, unknown>>;
    };

/** One file. */
export interface CaseFile {
  readonly subject: PolicySubject;
  readonly cases: readonly PolicyCase[];
  /** The place of a key. */
  readonly locate: PolicyText["locate"];
}

/** Reads a file of cases, or says every problem as `file:line:column: …`; undefined for a file without `cases`. */
export function readCaseFile(
  text: string,
  file: string,
): CaseFile | { readonly problems: readonly string[] } | undefined {
  const parsed = parsePolicyText(text, file);
  const { value } = parsed;
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, "cases"))
    return undefined;
  const problems = new Problems((path) => parsed.locate(path));
  const root = new Node(value, [], problems);
  const fields = root.fields({ known: ["config", "policy", "egress_policy", "cases"] });
  const subject = readSubject(root, fields);
  const cases = fields.get("cases");
  const items = cases?.items() ?? [];
  if (cases !== undefined && items.length === 0) cases.error("must have at least one case");
  const read = items.flatMap((item, index) => readCase(item, index) ?? []);
  if (problems.hasErrors || subject === undefined) {
    return { problems: problems.list.map((problem) => problemText(problem, file)) };
  }
  return { subject, cases: read, locate: (path) => parsed.locate(path) };
}

type Fields = ReadonlyMap<string, Node>;

function readSubject(root: Node, fields: Fields): PolicySubject | undefined {
  const given = ["config", "policy", "egress_policy"].filter((key) => fields.has(key));
  if (given.length !== 1) return root.error("needs one of config, policy, egress_policy");
  const config = fields.get("config")?.string();
  if (config !== undefined) return { kind: "config", file: config };
  const policy = fields.get("policy")?.string();
  if (policy !== undefined)
    return { kind: "policy", key: "policy", config: { policy_file: policy } };
  const inline = fields.get("egress_policy");
  if (inline === undefined) return undefined;
  return {
    kind: "policy",
    key: "egress_policy",
    config: Object.fromEntries(inline.entries().map(([key, node]) => [key, node.value])),
  };
}

const texts = ["connect", "url", "method", "path", "binary", "caller"] as const;
const expectations = ["plugin", "entry", "rule", "reason", "sent"] as const;

function readCase(node: Node, index: number): PolicyCase | undefined {
  const fields = node.fields({
    known: ["name", ...texts, "headers", "body", "ancestors", "expect", "status", ...expectations],
  });
  const expected = fields.get("expect");
  if (expected === undefined) return node.error("a case needs expect: allow, audit or deny");
  const verdict = expected.oneOf(["allow", "audit", "deny"] as const);
  const source = readSource(fields);
  const probe = readProbe(source);
  if ("error" in probe) return node.error(probe.error);
  if (verdict === undefined) return undefined;
  const said = stringsOf(fields, expectations);
  const status = fields.get("status")?.integer(100, 599);
  return {
    name: fields.get("name")?.string() ?? `case ${index + 1}`,
    probe,
    expected: { verdict, ...said, ...(status === undefined ? {} : { status }) },
  };
}

function readSource(fields: Fields): ProbeSource {
  const headers = fields
    .get("headers")
    ?.entries()
    .flatMap(([name, value]) => {
      const text = value.string();
      return text === undefined ? [] : [[name, text] as const];
    });
  const body = fields.get("body")?.value;
  const ancestors = fields
    .get("ancestors")
    ?.items()
    .flatMap((item) => item.string() ?? []);
  return {
    ...stringsOf(fields, texts),
    ...(headers === undefined ? {} : { headers }),
    ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) }),
    ...(ancestors === undefined ? {} : { ancestors }),
  };
}

function stringsOf<Key extends string>(
  fields: Fields,
  keys: readonly Key[],
): Partial<Record<Key, string>> {
  const found: Partial<Record<Key, string>> = {};
  for (const key of keys) {
    const text = fields.get(key)?.string();
    if (text !== undefined) found[key] = text;
  }
  return found;
}
