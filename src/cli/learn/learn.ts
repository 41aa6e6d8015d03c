/** From what was seen to a policy file: what the file lets through already stays as it is, the rest is added. */
import { realpath, stat } from "node:fs/promises";
import { messageOf, ProxyError } from "../../errors.ts";
import { writeAtomically } from "../../files/atomic-file.ts";
import { isMissing, readSmallFile } from "../../files/watched-file.ts";
import { unreadable } from "../../files/given-file.ts";
import { maxPolicyBytes } from "../../plugins/egress-policy/source.ts";
import type { NotSuggested } from "../../policy/suggest.ts";
import { decisionOf, policyOf } from "./known-policy.ts";
import { type Learned, learnedEntries } from "./learned-entries.ts";
import type { Observation, ObservedTraffic } from "./observed-traffic.ts";
import { keysIn, withLearned } from "./policy-text.ts";
import { type Ask, reviewed } from "./review.ts";

/** What is learned from and into. */
export interface Lesson {
  readonly traffic: ObservedTraffic;
  /** The policy file, and its text where it is there. */
  readonly file: string;
  readonly text: string | undefined;
  /** Asked about each rule, where somebody reviews. */
  readonly ask?: Ask | undefined;
}

/** What came of it. */
export interface Taught {
  /** The whole text; undefined where nothing is to be written. */
  readonly text: string | undefined;
  /** Lines for whoever asked, one each. */
  readonly notes: readonly string[];
}

/** The text of a policy file that learning adds to; undefined where there is none. Throws where it cannot be used. */
export async function policyFileText(file: string): Promise<string | undefined> {
  let text: string;
  try {
    text = readSmallFile(file, maxPolicyBytes);
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw unreadable(file, error);
  }
  usable(text, file);
  return text;
}

/** Deterministic but for the reviewer's answers. Throws where the policy would not be usable. */
export async function learn({ traffic, file, text, ask }: Lesson): Promise<Taught> {
  const { observations } = traffic;
  const { missing, refused } = sorted(observations, text, file);
  const found = learnedEntries(missing, text === undefined ? [] : keysIn(text));
  const all: Learned = { ...found, refused: [...refused, ...found.refused] };
  const learned = ask === undefined ? all : await reviewed(all, ask);
  if (learned === undefined)
    return { text: undefined, notes: ["the review was left: nothing was written"] };
  const notes = notesOn(traffic, learned, text === undefined);
  if (text === undefined && learned.entries.length + learned.refused.length === 0)
    return { text: undefined, notes: [...notes, "there is nothing to learn"] };
  const whole = withLearned(text, learned);
  const policy = usable(whole, file);
  const left = missing.filter((one) => decisionOf(policy, one).effect === "deny");
  const isWhole = ask === undefined && learned.refused.length === 0;
  if (isWhole && left.length > 0) {
    const places = new Set(left.map(wordsFor));
    notes.push(`the policy still refuses ${[...places].slice(0, 10).join(", ")}`);
  }
  return { text: whole, notes };
}

/** Replaced in one step: a proxy that watches the file never reads half of it. */
export async function writePolicyFile(file: string, text: string): Promise<void> {
  // A link stays one.
  const target = await realpath(file).catch(() => file);
  const mode = await stat(target).then(
    (found) => found.mode & 0o777,
    () => 0o644,
  );
  await writeAtomically(target, text, mode);
}

function usable(text: string, file: string): ReturnType<typeof policyOf> {
  try {
    return policyOf(text, file);
  } catch (error) {
    throw new ProxyError("config.invalid", `${file} cannot be used: ${messageOf(error)}`);
  }
}

/** Codes that a further rule changes. */
const learnable: ReadonlySet<string> = new Set([
  "empty-policy",
  "endpoint-not-allowed",
  "binary-not-allowed",
  "caller-not-allowed",
  "not-permitted",
  "path-outside-endpoints",
]);

/** What the file lacks, and what it refuses whatever is added. */
function sorted(
  observations: readonly Observation[],
  text: string | undefined,
  file: string,
): { readonly missing: readonly Observation[]; readonly refused: readonly NotSuggested[] } {
  if (text === undefined) return { missing: observations, refused: [] };
  const policy = usable(text, file);
  const missing: Observation[] = [];
  const refused: NotSuggested[] = [];
  for (const observation of observations) {
    const { effect, code, reason } = decisionOf(policy, observation);
    if (effect !== "deny") continue;
    const { host, port } = observation;
    if (learnable.has(code)) missing.push(observation);
    else refused.push({ host, port, reason: `${code}: ${reason}` });
  }
  return { missing, refused };
}

function notesOn(traffic: ObservedTraffic, learned: Learned, isNew: boolean): string[] {
  const notes: string[] = [];
  const opaque = new Set(
    traffic.observations.flatMap((one) => (one.request === undefined ? [wordsFor(one)] : [])),
  );
  if (opaque.size > 0)
    notes.push(
      `nobody looked into the connections to ${[...opaque].slice(0, 10).join(", ")}: each host was learned whole. The TLS bridge (tls_bridge.mode: enabled, for clients that trust its CA) would learn methods and paths`,
    );
  if (traffic.refused > 0)
    notes.push(`${traffic.refused} refused message(s) were left out: policy suggest is for those`);
  if (traffic.omitted > 0)
    notes.push(`${traffic.omitted} message(s) found no room and were left out`);
  // A new file says it itself.
  for (const { host, port, reason } of isNew ? [] : learned.refused)
    notes.push(`not learned: ${host}:${port}: ${reason}`);
  return notes;
}

function wordsFor({ host, port, request }: Observation): string {
  const place = `${host}:${port}`;
  return request === undefined ? place : `${request.method} ${place}${request.path}`;
}
