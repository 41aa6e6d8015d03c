/** The reflection service: it is shown a conversation, the tools that there are and one call, and says whether the call is grounded. */
import { hash } from "node:crypto";
import { isObject, numberOf, objectsOf, oneLine, textOf } from "../../http/json-access.ts";
import { postJson } from "../../http/json-post.ts";
import { parseStrictJson } from "../../http/strict-json.ts";
import type { OperatorFetch, PluginDeps } from "../../pipeline/plugin.ts";
import type { SecretSet } from "../credentials/secret-set.ts";
import { ServiceBearer } from "../credentials/service-bearer.ts";
import { type Ruling, VerdictCache } from "../verdict-cache.ts";
import { defaultTimeoutMs, type SparcConfig } from "./config.ts";
import type { Conversation } from "./conversations.ts";

/** A tool call in the words of OpenAI's API. */
export interface ToolCall {
  readonly id: string;
  readonly name: string;
  /** JSON as it was spelled. */
  readonly arguments: string;
}

/** What is wrong with a call. */
export interface Issue {
  readonly explanation: string;
  readonly issue_type?: string;
  readonly metric_name?: string;
  /** What the call should have been, in words or as JSON. */
  readonly correction?: string;
}

/** What the service said of a call, or why nothing is known. */
export type Verdict =
  | {
      readonly kind: "approve" | "reject";
      readonly issues: readonly Issue[];
      /** From 0 to 1; higher is better grounded. */
      readonly score?: number;
      readonly executionMs?: number;
    }
  | { readonly kind: "unavailable"; readonly why: string };

/** In what a call is judged. */
export interface Grounds {
  readonly conversation: Conversation;
  readonly sessionId: string | undefined;
}

/** A longer question is not asked. */
const maxQuestionChars = 8 * 1_024 * 1_024;
const maxResponseBytes = 65_536;
const maxIssues = 32;
const maxTextChars = 1_024;
const maxWordChars = 128;
const maxCorrectionChars = 200;

/** Asks one service, about the same thing once at a time. */
export class Reflector {
  readonly #track: string;
  readonly #url: string;
  readonly #fetch: OperatorFetch;
  readonly #bearer: ServiceBearer;
  readonly #verdicts: VerdictCache<Verdict>;

  constructor(config: SparcConfig, { fetch, clock }: PluginDeps, secrets: SecretSet) {
    this.#track = config.track;
    this.#url = `${config.reflector_endpoint.replace(/\/+$/, "")}/reflect`;
    this.#fetch = fetch;
    const { reflector_bearer: token, reflector_bearer_file: file } = config;
    const source = secrets.get("reflector_bearer");
    this.#bearer = new ServiceBearer({ token, file, fileKey: "reflector_bearer_file", source });
    this.#verdicts = new VerdictCache<Verdict>({
      clock,
      timeoutMs: config.timeout_ms === 0 ? defaultTimeoutMs : config.timeout_ms,
      maxConcurrency: config.max_concurrency,
      cacheTtlMs: config.cache_ttl_ms,
      unavailable: (why) => ({ kind: "unavailable", why }),
      isKept: ({ kind }) => kind !== "unavailable",
    });
  }

  /** Never rejects. */
  async reflect(call: ToolCall, { conversation, sessionId }: Grounds): Promise<Ruling<Verdict>> {
    const { messages, tools } = conversation;
    const { id, ...called } = call;
    const question = (callId: string): string =>
      JSON.stringify({
        messages,
        tool_specs: tools.map(({ name, description = "", parameters = {} }) => ({
          type: "function",
          function: { name, description, parameters },
        })),
        tool_calls: [{ id: callId, type: "function", function: called }],
        ...(sessionId === undefined ? {} : { session_id: sessionId }),
        track: this.#track,
      });
    const asked = question(id);
    if (asked.length > maxQuestionChars) {
      const why = "the conversation and the tools are too long to be shown";
      return { verdict: { kind: "unavailable", why }, isCached: false };
    }
    // The id of a call tells it from others and says nothing about it.
    return this.#verdicts.rule(hash("sha256", question("")), async (timeoutMs) => {
      const answer = await postJson(this.#fetch, {
        url: this.#url,
        fields: this.#bearer.fields,
        body: asked,
        timeoutMs,
        maxBytes: maxResponseBytes,
      });
      return answer.kind === "body"
        ? readVerdict(answer.body)
        : { kind: "unavailable", why: `the reflection service ${answer.why}` };
    });
  }
}

/** A verdict is one JSON object that every reader reads alike, with one of two words in it; anything else is none. */
function readVerdict(body: Buffer): Verdict {
  const json = parseStrictJson(body);
  if (json.kind !== "json" || !isObject(json.value)) {
    return { kind: "unavailable", why: "the reflection service's answer is no verdict" };
  }
  const { decision, overall_avg_score: average, execution_time_ms: spent } = json.value;
  if (decision !== "approve" && decision !== "reject") {
    const why = `the reflection service decided ${JSON.stringify(oneLine(decision, 32))}`;
    return { kind: "unavailable", why };
  }
  const score = numberOf(average);
  const executionMs = numberOf(spent);
  return {
    kind: decision,
    issues: objectsOf(json.value["issues"]).slice(0, maxIssues).flatMap(readIssue),
    ...(score === undefined ? {} : { score }),
    ...(executionMs === undefined ? {} : { executionMs }),
  };
}

function readIssue(issue: Readonly<Record<string, unknown>>): readonly Issue[] {
  const explanation = oneLine(issue["explanation"], maxTextChars);
  const { correction } = issue;
  const corrected = textOf(correction) ?? (isObject(correction) ? JSON.stringify(correction) : "");
  const words = {
    issue_type: oneLine(issue["issue_type"], maxWordChars),
    metric_name: oneLine(issue["metric_name"], maxWordChars),
    correction: oneLine(corrected, maxCorrectionChars),
  };
  const said = Object.entries(words).filter(([, word]) => word !== "");
  if (explanation === "" && said.length === 0) return [];
  return [{ explanation, ...Object.fromEntries(said) }];
}
