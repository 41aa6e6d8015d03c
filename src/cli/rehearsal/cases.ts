/** Files of `policy test`: which policy is asked, what is asked, and what is expected; read with a place for each mistake. */
import { z } from "zod";
import { ProxyError } from "../../errors.ts";
import { judge, type Node } from "../../policy/file/node.ts";
import { Problems, problemText } from "../../policy/file/problem.ts";
import { parsePolicyText, type PolicyText } from "../../plugins/egress-policy/source.ts";
import { type Probe, readProbe } from "./probe.ts";

const text = z.string().optional();

const expectation = {
  expect: z.enum(["allow", "audit", "deny"], {
    error: ({ input }) =>
      input === undefined ? "a case needs expect: allow, audit or deny" : undefined,
  }),
  plugin: text,
  entry: text,
  rule: text,
  reason: text.describe("A part of the reason."),
  status: z.int().min(100).max(599).optional(),
  sent: text.describe("Path and query as they would be sent."),
};

const caseSchema = z.strictObject({
  name: text,
  connect: text,
  url: text,
  method: text,
  path: text,
  headers: z.record(z.string(), z.string()).optional(),
  body: z.unknown().optional(),
  binary: text,
  ancestors: z.array(z.string()).optional(),
  caller: text,
  ...expectation,
});

const subjects = ["config", "policy", "egress_policy"] as const;

const fileSchema = z.strictObject({
  config: text,
  policy: text,
  egress_policy: z.record(z.string(), z.unknown()).optional(),
  cases: z.array(caseSchema).min(1, { error: "must have at least one case" }),
});

type CaseSource = z.output<typeof caseSchema>;

/** What one case expects; what is absent is not compared. */
export type Expectation = Pick<CaseSource, keyof typeof expectation>;

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

/** Reads a file of cases; throws ProxyError with every problem of it. Undefined for a file without `cases`. */
export function readCaseFile(text: string, file: string): CaseFile | undefined {
  const parsed = parsePolicyText(text, file);
  const { value } = parsed;
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, "cases"))
    return undefined;
  const problems = new Problems((path) => parsed.locate(path));
  const root = judge(fileSchema, value, problems);
  const subject = readSubject(root);
  const items = root.at("cases")?.items() ?? [];
  const cases = items.flatMap((item, index) => readCase(item, index) ?? []);
  root.tellFaults();
  if (problems.hasErrors || subject === undefined) {
    const list = problems.list.map((problem) => problemText(problem, file));
    throw new ProxyError("config.invalid", list.join("\n"));
  }
  return { subject, cases, locate: (path) => parsed.locate(path) };
}

function readSubject(root: Node<z.output<typeof fileSchema>>): PolicySubject | undefined {
  const given = subjects.filter((key) => root.at(key) !== undefined);
  if (given.length !== 1) return root.error(`needs one of ${subjects.join(", ")}`);
  const config = root.get("config");
  if (config !== undefined) return { kind: "config", file: config };
  const policy = root.get("policy");
  if (policy !== undefined)
    return { kind: "policy", key: "policy", config: { policy_file: policy } };
  const inline = root.get("egress_policy");
  return inline && { kind: "policy", key: "egress_policy", config: inline };
}

function readCase(node: Node<CaseSource>, index: number): PolicyCase | undefined {
  node.tellFaults();
  const { whole } = node;
  if (whole === undefined) return undefined;
  const { expect, plugin, entry, rule, reason, status, sent, ...asked } = whole;
  const { name = `case ${index + 1}`, headers, body, ...plain } = asked;
  const probe = readProbe({
    ...plain,
    headers: headers && Object.entries(headers),
    body: body === undefined || typeof body === "string" ? body : JSON.stringify(body),
  });
  if (typeof probe === "string") return node.error(probe);
  return { name, probe, expected: { expect, plugin, entry, rule, reason, status, sent } };
}
