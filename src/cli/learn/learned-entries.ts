/** From what was seen to the entries of a policy that lets it through: endpoints, rules, tools and executables. */
import { readPath } from "../../http/path.ts";
import { DenialAggregate } from "../../policy/aggregate.ts";
import { unresolvedBinary } from "../../policy/binary-matcher.ts";
import {
  freeKey,
  generalPath,
  type NotSuggested,
  placeRisks,
  suggest,
  type SuggestedBinary,
  type SuggestedEndpoint,
} from "../../policy/suggest.ts";
import { shapeOf } from "./argument-shape.ts";
import type { Observation, ObservedCall } from "./observed-traffic.ts";

/** What a rule allows, as the file has it. */
export type Allowance = Readonly<Record<string, unknown>>;

/** A rule to add. */
export interface LearnedRule {
  readonly allow: Allowance;
  /** What was seen and nothing else, where that is less. */
  readonly exact?: readonly Allowance[];
  /** Lines of a comment: risks first, then examples. */
  readonly notes: readonly string[];
}

/** An endpoint to add; without a protocol the host is open whole. */
export interface LearnedEndpoint {
  readonly host: string;
  readonly port: number;
  /** Settings besides host, port and rules, in the order of the file. */
  readonly settings: Readonly<Record<string, unknown>>;
  readonly rules: readonly LearnedRule[];
  readonly notes: readonly string[];
}

/** An entry to add; the endpoints are for these executables, or for everybody. */
export interface LearnedEntry {
  readonly key: string;
  readonly endpoints: readonly LearnedEndpoint[];
  readonly binaries: readonly SuggestedBinary[];
}

/** Entries, and what none can allow. */
export interface Learned {
  readonly entries: readonly LearnedEntry[];
  readonly refused: readonly NotSuggested[];
}

const mostExamples = 3;
/** What a body of JSON-RPC may take without a word in the file. */
const usualBodyBytes = 65_536;
const largeUploadBytes = 1_048_576;

/** Deterministic, whatever the order of the observations. */
export function learnedEntries(
  observations: readonly Observation[],
  takenKeys: Iterable<string>,
): Learned {
  const plain = new DenialAggregate({ maxSummaries: 4_096, maxSamples: 4_096 });
  const servers = new Map<string, Observation[]>();
  for (const observation of observations) {
    const { host, port, executable: binary, request } = observation;
    const denial = { host, port, binary, code: "endpoint-not-allowed" } as const;
    if (request?.calls !== undefined) {
      const key = JSON.stringify([host, port, generalPath(spelt(request.path))]);
      servers.set(key, [...(servers.get(key) ?? []), observation]);
    } else if (request === undefined) plain.record(denial, 0);
    else {
      // A server may read the path in another way: the rules have to agree on all of them.
      for (const path of readPath(request.path, { slashIsData: true }).readings)
        plain.record({ ...denial, method: request.method, path }, 0);
    }
  }
  const taken = new Set(takenKeys);
  const { entries, refused } = suggest(plain.summaries(), taken);
  const learned = entries.map(({ key, endpoints, binaries }) => ({
    key,
    binaries,
    endpoints: endpoints.map((endpoint) => plainEndpoint(endpoint, observations)),
  }));
  for (const { key } of learned) taken.add(key);
  for (const key of [...servers.keys()].sort())
    addServer(learned, serverOf(servers.get(key) ?? []), taken);
  return { entries: learned, refused };
}

interface MutableEntry {
  readonly key: string;
  readonly binaries: readonly SuggestedBinary[];
  endpoints: readonly LearnedEndpoint[];
}

interface Server {
  readonly endpoint: LearnedEndpoint;
  readonly binaries: readonly SuggestedBinary[];
}

/** Endpoints that the same executables need share an entry. */
function addServer(
  entries: MutableEntry[],
  { endpoint, binaries }: Server,
  taken: Set<string>,
): void {
  const paths = (of: readonly SuggestedBinary[]): string => of.map(({ path }) => path).join("\0");
  const found = entries.find((entry) => paths(entry.binaries) === paths(binaries));
  if (found !== undefined) found.endpoints = [...found.endpoints, endpoint];
  else entries.push({ key: freeKey([endpoint], taken), binaries, endpoints: [endpoint] });
}

function plainEndpoint(
  { host, port, rules, risks, hasEncodedSlash }: SuggestedEndpoint,
  observations: readonly Observation[],
): LearnedEndpoint {
  const here = observations.filter((one) => one.host === host && one.port === port);
  const place = { host, port, notes: riskNote([...risks, ...uploadRisks(here)]) };
  if (rules.length === 0) return { ...place, settings: {}, rules: [] };
  return {
    ...place,
    settings: {
      protocol: "rest",
      enforcement: "enforce",
      ...(hasEncodedSlash === true ? { allow_encoded_slash: true } : {}),
    },
    rules: rules.map(({ method, path, seen, risks: ruleRisks }) => {
      const asked = here.filter(
        ({ request }) => request?.method === method && generalPath(spelt(request.path)) === path,
      );
      return {
        allow: { method, path },
        ...(seen.length === 0 ? {} : { exact: seen.map((one) => ({ method, path: one })) }),
        notes: [...riskNote(ruleRisks), ...modelNotes(asked), ...exampleNote(seen)],
      };
    }),
  };
}

/** The endpoint of one MCP server, with a rule for each method and tool. */
function serverOf(observations: readonly Observation[]): Server {
  const [first] = observations;
  const { host = "", port = 0, request } = first ?? {};
  const executables = observations.map(({ executable }) => executable);
  const isForAll = executables.includes(undefined);
  const named = suggest(
    executables.flatMap((binary) => {
      const denial = { host, port, code: "endpoint-not-allowed", count: 1 } as const;
      const times = { firstSeen: 0, lastSeen: 0, samples: [] };
      return [{ ...denial, ...times, binary: binary ?? unresolvedBinary }];
    }),
  );
  const binaries = isForAll ? [] : (named.entries[0]?.binaries ?? []);
  const sent = Math.max(...observations.map(({ sentBytes }) => sentBytes));
  const risks = placeRisks(host, port);
  if (isForAll) risks.push("no binaries: every process may go there");
  const calls = observations.flatMap((one) => one.request?.calls ?? []);
  return {
    binaries,
    endpoint: {
      host,
      port,
      settings: {
        path: generalPath(spelt(request?.path ?? "/")),
        protocol: "mcp",
        enforcement: "enforce",
        ...(sent > usualBodyBytes
          ? { mcp: { max_body_bytes: 2 ** Math.ceil(Math.log2(sent)) } }
          : {}),
      },
      notes: riskNote([...risks, ...uploadRisks(observations)]),
      rules: callRules(calls),
    },
  };
}

function callRules(calls: readonly ObservedCall[]): readonly LearnedRule[] {
  const methods = [
    ...new Set(calls.flatMap(({ method, tool }) => (tool === undefined ? method : []))),
  ];
  const tools = [...new Set(calls.flatMap(({ tool }) => tool ?? []))].sort();
  return [
    ...methods.sort().map((method) => ({ allow: { method }, notes: [] })),
    ...tools.map((tool) => {
      const args = calls.flatMap((call) => (call.tool === tool ? [call.args ?? {}] : []));
      const call = { method: "tools/call", tool: quoteTool(tool) };
      const risk = "a tool does what its server says; the arguments are a guess from what was seen";
      return {
        allow: { ...call, schema: shapeOf(args) },
        exact: [{ ...call, schema: shapeOf(args, true) }],
        notes: [`risk: ${risk}`, ...exampleNote(args.map((one) => JSON.stringify(one)))],
      };
    }),
  ];
}

/** Names of tools are patterns in the file. */
function quoteTool(name: string): string {
  return name.replaceAll(/[\\*?[\]{}!,]/g, String.raw`\$&`);
}

function uploadRisks(observations: readonly Observation[]): readonly string[] {
  const sent = Math.max(0, ...observations.map(({ sentBytes }) => sentBytes));
  if (sent < largeUploadBytes) return [];
  return [`uploads of up to ${Math.ceil(sent / largeUploadBytes)} MiB were seen`];
}

function modelNotes(observations: readonly Observation[]): readonly string[] {
  const models = observations.flatMap(({ request }) => {
    const { api, model } = request?.model ?? {};
    return api === undefined ? [] : [`${api} ${model ?? ""}`.trim()];
  });
  return models.length === 0 ? [] : [`language model: ${[...new Set(models)].sort().join(", ")}`];
}

function riskNote(risks: readonly string[]): readonly string[] {
  return risks.length === 0 ? [] : [`risk: ${risks.join("; ")}`];
}

function exampleNote(examples: readonly string[]): readonly string[] {
  const different = [...new Set(examples)];
  if (different.length === 0) return [];
  const shown = different.slice(0, mostExamples).map((text) => text.slice(0, 160));
  const more = different.length - shown.length;
  return [`seen: ${shown.join(", ")}${more > 0 ? `, and ${more} more` : ""}`];
}

function spelt(path: string): string {
  return readPath(path, { slashIsData: true }).readings[0];
}
