/** A service of the operator's that says how much a text is an instruction to a model. */
import { hash } from "node:crypto";
import { durationMs } from "../../duration.ts";
import { isFieldValue } from "../../http/headers.ts";
import { isObject, numberOf, textOf } from "../../http/json-access.ts";
import { postJson } from "../../http/json-post.ts";
import { parseStrictJson } from "../../http/strict-json.ts";
import type { OperatorFetch, PluginDeps } from "../../pipeline/plugin.ts";
import { Secret } from "../../secret.ts";
import { FixedSecret } from "../../secrets/local-secret.ts";
import { type SecretSource, unavailable } from "../../secrets/secret-source.ts";
import type { SecretSet } from "../credentials/secret-set.ts";
import { ServiceBearer } from "../credentials/service-bearer.ts";
import { VerdictCache } from "../verdict-cache.ts";
import type { ClassifierConfig } from "./config.ts";
import type { SignalName } from "./findings.ts";
import type { Origin } from "./guard-rule.ts";

/** What the service said, from 0 to 1, or why nothing is known. */
export type Classification =
  | { readonly kind: "score"; readonly score: number }
  | { readonly kind: "unavailable"; readonly why: string };

const maxResponseBytes = 65_536;
/** What models for this purpose call a text that instructs. */
const instructing = /^(?:injection|jailbreak|malicious|unsafe|label_1|1|true|yes)$/i;

/** Asks one service, about the same text once at a time. */
export class Classifier {
  readonly #config: ClassifierConfig;
  readonly #fetch: OperatorFetch;
  readonly #bearer: ServiceBearer;
  readonly #headers: readonly (readonly [string, SecretSource])[];
  readonly #verdicts: VerdictCache<Classification>;

  constructor(
    config: ClassifierConfig,
    { fetch, clock }: Pick<PluginDeps, "fetch" | "clock">,
    secrets: SecretSet,
  ) {
    this.#config = config;
    this.#fetch = fetch;
    const { bearer: token, bearer_file: file } = config;
    const source = secrets.get("classifier.bearer");
    this.#bearer = new ServiceBearer({ token, file, fileKey: "classifier.bearer_file", source });
    this.#headers = Object.entries(config.headers).flatMap(([name, value]) => {
      const fixed =
        typeof value === "string" ? new FixedSecret(name, new Secret(value)) : undefined;
      const given = fixed ?? secrets.get(`classifier.headers.${name}`);
      return given === undefined ? [] : [[name, given] as const];
    });
    this.#verdicts = new VerdictCache<Classification>({
      clock,
      timeoutMs: durationMs(config.timeout),
      maxConcurrency: config.max_concurrency,
      service: "the classifier",
      timeoutKey: "classifier.timeout",
      cacheTtlMs: durationMs(config.cache_ttl),
      unavailable: (why) => ({ kind: "unavailable", why }),
      isKept: ({ kind }) => kind === "score",
    });
  }

  /** Never rejects. */
  async classify(
    text: string,
    { host, tool }: Origin,
    signals: readonly SignalName[],
  ): Promise<Classification> {
    if (Buffer.byteLength(text) > this.#config.max_bytes) {
      return { kind: "unavailable", why: "the text is longer than classifier.max_bytes" };
    }
    const about = { host, ...(typeof tool === "string" ? { tool } : {}), signals };
    const body = JSON.stringify({ text, ...about });
    const { verdict } = await this.#verdicts.rule(hash("sha256", body), async (timeoutMs) => {
      const answer = await postJson(this.#fetch, {
        url: this.#config.url,
        fields: () => this.#fields(),
        body,
        timeoutMs,
        maxBytes: maxResponseBytes,
      });
      return answer.kind === "body"
        ? readVerdict(answer.body)
        : { kind: "unavailable", why: `the classifier ${answer.why}` };
    });
    return verdict;
  }

  async #fields(): Promise<Readonly<Record<string, string>>> {
    const own: Record<string, string> = {};
    for (const [name, given] of this.#headers) {
      const text = (await given.current()).value.reveal();
      if (!isFieldValue(text)) throw unavailable(`${given.name} gave what no field can have`);
      own[name] = text;
    }
    return { ...own, ...(await this.#bearer.fields()) };
  }
}

/** `{"score": 0.9}`, or the labels of a model: `[{"label": "INJECTION", "score": 0.9}]`, also in one more list. */
function readVerdict(body: Buffer): Classification {
  const json = parseStrictJson(body);
  const unavailable = { kind: "unavailable", why: "the classifier gave no score" } as const;
  if (json.kind !== "json") return unavailable;
  const { value } = json;
  const score = Array.isArray(value)
    ? labelled(value)
    : numberOf(isObject(value) ? value["score"] : undefined);
  return score === undefined || score < 0 || score > 1 ? unavailable : { kind: "score", score };
}

function labelled(list: readonly unknown[]): number | undefined {
  const inner: readonly unknown[] = Array.isArray(list[0]) ? list[0] : list;
  const labels = inner.filter(isObject);
  const found = labels.find(({ label }) => instructing.test(textOf(label) ?? ""));
  if (found !== undefined) return numberOf(found["score"]);
  // Only the likeliest label is told.
  const other = numberOf(labels[0]?.["score"]);
  return other === undefined ? undefined : 1 - other;
}
