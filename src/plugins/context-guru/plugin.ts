/**
 * context-guru: shortens large outputs of tools in requests to language models, and gives them whole to whoever asks.
 *
 * It stands behind everything that reads requests: policy sees what the agent sent. It permits nothing.
 */
import type { JsonReplacement } from "../../http/json-splice.ts";
import { spliceJson } from "../../http/json-splice.ts";
import { isObject } from "../../http/json-access.ts";
import { hasSignedBody } from "../../http/signed-fields.ts";
import { callerOf } from "../../pipeline/flow.ts";
import {
  type Answer,
  type Decision,
  type Held,
  observe,
  type Plugin,
  type PluginDeps,
  type RequestContext,
  skip,
  type Soon,
} from "../../pipeline/plugin.ts";
import { inferenceFact, tokensIn } from "../../protocols/inference-view.ts";
import { requestJson } from "../../protocols/message-json.ts";
import { type ToolOutput, toolOutputs } from "../../protocols/tool-outputs.ts";
import { inferenceEndpoint } from "../parsers/inference.ts";
import { originOf } from "../config-values.ts";
import {
  contextGuruConfig,
  type ContextGuruConfig,
  limitsOf,
  modelOf,
  ttlMsOf,
  unusedKeysOf,
} from "./config.ts";
import type { Draft, Limits } from "./draft.ts";
import { expansion } from "./expand.ts";
import { idOf, isMarked, marked } from "./marker.ts";
import { shorten } from "./shorten.ts";
import { sentinelField, Summarizer } from "./summary.ts";
import { type ShortText, TextStore } from "./text-store.ts";
import { type SecretSet, sourceAt } from "../credentials/secret-set.ts";
import { defineSecretUser } from "../credentials/secret-users.ts";

/** The definition that a pipeline names. */
export const contextGuru = defineSecretUser<ContextGuruConfig>({
  name: "context-guru",
  description: "Shortens large tool outputs in calls of language models",
  config: contextGuruConfig,
  body: { request: "write" },
  requires: ["inference-parser"],
  observes: true,
  origins: (config) => {
    const model = modelOf(config);
    return model === undefined ? [] : [originOf(model.base_url)];
  },
  readsSessions: true,
  sources: (config) => sourceAt(["model", "api_key"], config.model?.api_key),
  unused: unusedKeysOf,
  create: (config, deps, secrets) => new ContextGuru(config, deps, secrets),
});

/** A shortened output that is not at least so much shorter is not worth another text. */
const leastSaving = 0.1;

/** One output of a request. */
interface Found {
  readonly output: ToolOutput;
  readonly text: string;
  readonly id: string;
}

class ContextGuru implements Plugin {
  readonly #config: ContextGuruConfig;
  readonly #deps: PluginDeps;
  readonly #limits: Limits | undefined;
  readonly #texts: Held<Pick<TextStore, "find" | "whole" | "put">>;
  readonly #summarizer: Summarizer | undefined;
  /** Bounded by what the summarizer asks at a time. */
  readonly #asking = new Map<string, Promise<ShortText | undefined>>();

  constructor(config: ContextGuruConfig, deps: PluginDeps, secrets: SecretSet) {
    this.#config = config;
    this.#deps = deps;
    this.#limits = limitsOf(config);
    const model = modelOf(config);
    this.#summarizer = model === undefined ? undefined : new Summarizer(model, deps, secrets);
    // Another way of shortening is another store: what it gives has to be the same at every turn.
    const { store, engine, keep_chars: keep, min_chars: least } = config;
    const key = JSON.stringify([store, engine, keep, least, model?.base_url, model?.model]);
    const name = `context-guru texts ${deps.instance} ${idOf(key)}`;
    this.#texts = deps.held(name, ["find", "whole", "put"], () => {
      const { max_bytes: maxBytes, max_texts: maxTexts } = store;
      const onEvicted = (): void => deps.count("evicted");
      const ttlMs = ttlMsOf(config);
      return new TextStore({ clock: deps.clock, maxBytes, maxTexts, ttlMs, onEvicted });
    });
  }

  wantsBody(context: RequestContext): boolean {
    return this.#isLocal(context) || this.#isRead(context);
  }

  wantsAnswer(): boolean {
    return false;
  }

  onRequest(context: RequestContext): Answer | Promise<Answer> {
    if (this.#isLocal(context)) return this.#expand(context);
    if (!context.hasFacts || context.facts.get(inferenceFact) === undefined) return undefined;
    const limits = this.#limits;
    if (limits === undefined || !this.#isRead(context)) return undefined;
    if (context.headers.has(sentinelField)) return skip("sentinel");
    const owner = this.#ownerOf(context);
    if (owner === undefined) return skip("no_session");
    if (hasSignedBody(context.headers, context.sentPath, context.isResigned))
      return skip("signed_body");
    const json = requestJson(context);
    if (json.kind !== "json" || !isObject(json.value)) return undefined;
    const isExact = json.mayBeRounded !== true;
    const found = toolOutputs(json.value).flatMap((output) => this.#candidate(output, isExact));
    if (found.length === 0) return undefined;
    const ids = found.map(({ id }) => id);
    const shortened = (known: readonly (ShortText | undefined)[]): Answer | Promise<Answer> => {
      const kept = found.map(
        (one, at) => known[at] ?? this.#kept(owner, one, { limits, signal: context.signal }),
      );
      const finish = (texts: readonly (ShortText | undefined)[]): Decision =>
        this.#replace(context, found, texts);
      return kept.some((one) => one instanceof Promise)
        ? Promise.all(kept.map((one) => Promise.resolve(one))).then(finish)
        : finish(kept as (ShortText | undefined)[]);
    };
    const known = this.#texts.find(owner, ids);
    return known instanceof Promise
      ? known.then(shortened).catch(() => this.#away())
      : shortened(known);
  }

  /** The thread that has the texts does not respond: the request goes as it is. */
  #away(): Decision {
    this.#deps.count("state_away");
    return skip("state_away");
  }

  #isLocal({ destination }: RequestContext): boolean {
    return destination.host === this.#config.host;
  }

  #isRead(context: RequestContext): boolean {
    const { paths } = this.#config;
    const { pathname } = context;
    const isNamed = paths.length === 0 || paths.some((path) => pathname.endsWith(path));
    return isNamed && inferenceEndpoint(context) !== undefined;
  }

  async #expand(context: RequestContext): Promise<Decision> {
    const owner = this.#ownerOf(context);
    const decision = await expansion(context, (id) =>
      owner === undefined ? undefined : this.#texts.whole(owner, id),
    );
    this.#deps.count(decision.reason);
    return decision;
  }

  /** Whose text it is: nobody else can ask for it. Agents can name sessions, and not each other's where they authenticate. */
  #ownerOf(context: RequestContext): string | undefined {
    const { sessions } = this.#deps;
    const { client } = context.flow;
    const session = sessions?.sessionOf(context) ?? context.sessionId;
    const subject = context.identity?.subject ?? sessions?.subjectOf(context);
    if (session !== undefined) return JSON.stringify(["session", session, client.caller]);
    if (subject !== undefined) return JSON.stringify(["subject", subject, client.caller]);
    return this.#config.without_session === "caller"
      ? JSON.stringify(["caller", callerOf(client)])
      : undefined;
  }

  #candidate(output: ToolOutput, isExact: boolean): Found[] {
    const { value } = output;
    if (typeof value !== "string" && !isExact) return [];
    const text = typeof value === "string" ? value : JSON.stringify(value);
    if (text.length < this.#config.min_chars || isMarked(text)) return [];
    return [{ output, text, id: idOf(typeof value === "string" ? text : `value ${text}`) }];
  }

  /** The text as it is shortened now. */
  #kept(
    owner: string,
    found: Found,
    { limits, signal }: { readonly limits: Limits; readonly signal: AbortSignal },
  ): Soon<ShortText | undefined> {
    const draft = this.#draft(found, limits);
    if (draft === undefined) return undefined;
    const summarizer = draft.isCut ? this.#summarizer : undefined;
    if (summarizer === undefined) return this.#keep(owner, found, draft);
    // Calls at once that carry one text get one summary: the next turn has to find the same.
    const key = JSON.stringify([owner, found.id]);
    const asking =
      this.#asking.get(key) ??
      summarizer.of(found.text, limits.keepChars, signal).then((summary) => {
        this.#asking.delete(key);
        const said = { kind: "summary", text: summary ?? "", isLossy: true, isCut: false };
        return this.#keep(owner, found, summary === undefined ? draft : said);
      });
    this.#asking.set(key, asking);
    return asking;
  }

  /** An output is a stranger's text: a fault over it costs the saving, and no call. */
  #draft({ output }: Found, limits: Limits): Draft | undefined {
    try {
      return shorten(output.value, limits);
    } catch (err) {
      this.#deps.count("fault");
      this.#deps.log.error({ err }, "context-guru: an output could not be shortened");
      return undefined;
    }
  }

  #keep(owner: string, { id, text, output }: Found, draft: Draft): Soon<ShortText | undefined> {
    const { host } = this.#config;
    const short = draft.isLossy ? marked(draft, { id, host, chars: text.length }) : draft;
    const json = typeof output.value === "string" ? JSON.stringify(short.text) : short.text;
    // In JSON the text is no shorter than it is by itself.
    const isWorth = json.length <= text.length * (1 - leastSaving);
    const kept = { whole: text, json: isWorth ? json : undefined, kind: draft.kind };
    // Nothing was left out, so that there is nothing to ask for.
    if (!draft.isLossy) return kept;
    const put = (short: ShortText | undefined): ShortText | undefined => {
      if (short === undefined) this.#deps.count("not_kept");
      return short;
    };
    // Another call may have shortened it at the same time: both are given the same.
    const putting = this.#texts.put(owner, id, kept);
    return putting instanceof Promise ? putting.then(put) : put(putting);
  }

  #replace(
    context: RequestContext,
    found: readonly Found[],
    texts: readonly (ShortText | undefined)[],
  ): Decision {
    const clear = context.clearBody;
    if (clear?.kind !== "body") return skip("nothing_to_shorten");
    const replacements: JsonReplacement[] = [];
    for (const [at, { output }] of found.entries()) {
      const json = texts[at]?.json;
      if (json !== undefined) replacements.push({ path: output.path, json });
    }
    if (replacements.length === 0) return skip("nothing_to_shorten");
    const bytes = Buffer.from(spliceJson(clear.bytes.toString("utf8"), replacements));
    if (bytes.length >= clear.bytes.length) return skip("nothing_to_shorten");
    const before = tokensIn(clear.bytes.length);
    const after = tokensIn(bytes.length);
    context.setBody(bytes);
    const savings = { tokensBefore: before, tokensAfter: after, outputs: replacements.length };
    // Under on_error: observe nothing is replaced.
    if (context.body !== bytes) return observe("would_shorten", savings);
    const tokensSaved = before - after;
    context.facts.set("context-guru/event", { ...savings, tokensSaved });
    this.#deps.count("shortened");
    return observe("shortened", { ...savings, tokensSaved });
  }
}
