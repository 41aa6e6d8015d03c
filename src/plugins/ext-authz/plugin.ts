/** ext-authz: asks an authorization service that speaks Envoy's ext_authz about every message, over gRPC or HTTP. */
import { hash } from "node:crypto";
import { durationMs } from "../../duration.ts";
import { messageOf } from "../../errors.ts";
import { readPath } from "../../http/path.ts";
import {
  allow,
  type BodyAccess,
  type Decision,
  type DecisionDetails,
  definePlugin,
  type Denial,
  deny,
  modify,
  type Plugin,
  type PluginDeps,
  type RequestContext,
  skip,
} from "../../pipeline/plugin.ts";
import { originOf } from "../config-values.ts";
import {
  IncludedParts,
  type JsonObject,
  parsedInputs,
  parsersOf,
  shownFindings,
} from "../parsers/policy-input.ts";
import { type Ruling, VerdictCache } from "../verdict-cache.ts";
import { attributesOf, type FieldChoice } from "./attributes.ts";
import { changeRequest, changeResponse, changesOf, forbiddenIn, refusalFields } from "./changes.ts";
import { writeCheckRequest } from "./check-request.ts";
import { addressOf, extAuthzConfig, type ExtAuthzConfig } from "./config.ts";
import { certificateOf, type ShowCertificate } from "./certificate.ts";
import { type AuthzService, authzServiceOf } from "./services.ts";
import { StringMatcher } from "./string-matcher.ts";
import { isTooLong, type ToldBody, toldBodyOf } from "./told-body.ts";
import { unusedKeysOf } from "./unused-keys.ts";
import type { Allowed, Denied, FieldChange, NoVerdict, Verdict } from "./verdict.ts";

/** The definition that a pipeline names. */
export const extAuthz = definePlugin<ExtAuthzConfig>({
  name: "ext-authz",
  description:
    "Asks an authorization service that speaks Envoy's ext_authz, over gRPC or HTTP, about each message",
  config: extAuthzConfig,
  stages: ["connect", "request"],
  behind: (config) => parsersOf(includedIn(config)),
  missed: (config) => parsersOf(includedIn(config)),
  unused: unusedKeysOf,
  bestBehind: shownFindings,
  body: { request: "read" },
  origins: (config) => {
    const address = addressOf(config);
    return [address.startsWith("unix://") ? address : originOf(address)];
  },
  create: (config, deps) => new ExtAuthz(config, deps),
});

const failureField = "x-envoy-auth-failure-mode-allowed";
/** Questions that one message may cost. */
const maxQuestions = 100;

class ExtAuthz implements Plugin {
  readonly body: BodyAccess;
  readonly #config: ExtAuthzConfig;
  readonly #deps: PluginDeps;
  readonly #service: AuthzService;
  readonly #verdicts: VerdictCache<Verdict>;
  readonly #choice: FieldChoice;
  readonly #parts: IncludedParts;
  readonly #allowedFields: ReadonlySet<string>;
  readonly #certificate: ShowCertificate;

  constructor(config: ExtAuthzConfig, deps: PluginDeps) {
    this.#config = config;
    this.#deps = deps;
    this.body = config.with_request_body === undefined ? {} : { request: "read" };
    this.#certificate = certificateOf(config, deps);
    this.#service = authzServiceOf(config, deps, this.#certificate);
    this.#verdicts = new VerdictCache<Verdict>({
      clock: deps.clock,
      timeoutMs: this.#service.timeoutMs,
      maxConcurrency: config.max_concurrency,
      cacheTtlMs: durationMs(config.cache_ttl),
      service: "the authorization service",
      timeoutKey: "timeout",
      unavailable: (why) => ({ kind: "busy", why }),
      isKept: ({ kind }) => kind === "allowed" || kind === "denied",
    });
    this.#choice = fieldChoiceOf(config);
    this.#parts = new IncludedParts(config.include);
    this.#allowedFields = new Set(config.allow_headers);
  }

  /** Callers are told apart only where the file asks for it. */
  callerLinks(): readonly string[] | undefined {
    return this.#config.include_executable ? [] : undefined;
  }

  /** Looks at the files: where nothing comes before it is ready, no request does. */
  ready(): true | string {
    try {
      this.#certificate();
      return true;
    } catch (error) {
      return messageOf(error);
    }
  }

  /** A body that is known to be too long is refused without being read. */
  wantsBody(context: RequestContext): boolean {
    return !isTooLong(context, this.#config);
  }

  async onRequest(context: RequestContext): Promise<Decision> {
    const isConnect = context.stage === "connect";
    if (isConnect && this.#connect === "inspect") {
      context.tunnelTerms.mustInspect = "ext-authz is asked about each request (connect: inspect)";
      return skip("asked_inside");
    }
    // A client must not mark its own request as one that nobody has judged.
    if (this.#config.failure_mode_allow_header_add) context.headers.delete(failureField);
    const problem = unreadable(context);
    if (problem !== undefined) return problem;
    const told = toldBodyOf(context, this.#config);
    if ("refusal" in told) return told.refusal;
    const parsed = parsedInputs(context, this.#parts);
    if (parsed.length > maxQuestions) {
      const message = `a batch of more than ${maxQuestions} messages cannot be judged`;
      return deny("batch_too_large", { code: "policy.forbidden", message });
    }
    let last: Decision = skip("nothing_to_judge");
    const allowed: Allowed[] = [];
    for (const each of parsed) {
      const { verdict, isCached } = await this.#verdictOn(context, each, told);
      last = this.#follow(context, verdict, isCached);
      if (last.action === "deny") return last;
      if (verdict.kind === "allowed") allowed.push(verdict);
    }
    const changes = changesOf(allowed);
    this.#responseFields(context).push(...changes.responseFields);
    return changeRequest(context, changes) ? modify(last.reason, last.details) : last;
  }

  /** What the service decides is not known where nobody is asked. */
  rehearseRequest(context: RequestContext): Decision {
    if (context.stage === "connect" && this.#connect === "inspect") return skip("asked_inside");
    const told = unreadable(context) ?? toldBodyOf(context, this.#config);
    if ("action" in told) return told;
    if ("refusal" in told) return told.refusal;
    const key = this.#config.http_service === undefined ? "grpc_service" : "http_service";
    const message = `the authorization service of ${key} is not asked in a rehearsal`;
    return deny("not_rehearsed", { code: "upstream.unreachable", message });
  }

  wantsAnswer(context: RequestContext): boolean {
    return this.#responseFields(context).length > 0;
  }

  wantsAnswerBody(): boolean {
    return false;
  }

  onResponse(context: RequestContext): Decision | undefined {
    const fields = this.#responseFields(context);
    if (fields.length === 0 || context.response === undefined) return undefined;
    changeResponse(context.response.headers, fields);
    return modify("response_headers_added");
  }

  get #connect(): "check" | "inspect" {
    const { connect, http_service: http } = this.#config;
    return connect ?? (http === undefined ? "check" : "inspect");
  }

  #responseFields(context: RequestContext): FieldChange[] {
    return context.stateOf<FieldChange[]>(this, () => []);
  }

  async #verdictOn(
    context: RequestContext,
    parsed: JsonObject,
    { bytes, isPartial }: Exclude<ToldBody, { readonly refusal: Decision }>,
  ): Promise<Ruling<Verdict>> {
    const attributes = attributesOf(context, {
      config: this.#config,
      deps: this.#deps,
      choice: this.#choice,
      body: bytes,
      isPartial,
      parsed,
    });
    const isKept = durationMs(this.#config.cache_ttl) > 0;
    const key = isKept
      ? hash("sha256", writeCheckRequest(attributes, true), "base64url")
      : `${context.flow.id} ${questions++}`;
    const ruling = await this.#verdicts.rule(key, (timeoutMs) =>
      this.#service.ask(attributes, timeoutMs),
    );
    this.#deps.count(ruling.isCached ? "cached" : "asked");
    return ruling;
  }

  #follow(context: RequestContext, verdict: Verdict, isCached: boolean): Decision {
    const details = isCached ? { cached: true } : {};
    switch (verdict.kind) {
      case "allowed":
        return this.#allow(context, verdict, { ...details, ...verdict.metadata });
      case "denied":
        return this.#deny(context, verdict, { ...details, ...verdict.metadata });
      case "busy":
        this.#deps.count("busy");
        // Somebody who sends many requests must not switch the check off.
        return deny("service_busy", { code: "proxy.overloaded", message: verdict.why });
      case "failed":
        return this.#fail(context, verdict);
    }
  }

  #allow(context: RequestContext, verdict: Allowed, details: DecisionDetails): Decision {
    const forbidden = forbiddenIn(verdict, context, this.#allowedFields);
    if (forbidden !== undefined) {
      const { what, key } = forbidden;
      const hint = key === undefined ? "" : ` (ext-authz: ${key})`;
      const message = `the authorization service wants to set ${what}, which it may not${hint}`;
      this.#deps.count("change_refused");
      return deny("change_refused", { code: "policy.forbidden", message }, details);
    }
    this.#deps.count("allowed");
    return allow("allowed", details);
  }

  #deny(context: RequestContext, verdict: Denied, details: DecisionDetails): Decision {
    const headers = refusalFields(verdict.fields);
    this.#deps.count("denied");
    // To a CONNECT a 2xx would say that the tunnel is open.
    const isSuccess = context.stage === "connect" && verdict.status < 300;
    const status = isSuccess ? 403 : verdict.status;
    const { body } = verdict;
    const denial: Denial = {
      code: "policy.forbidden",
      message: "refused by the authorization service",
      status,
      headers,
      unavailable: false,
    };
    if (body.length === 0) return deny("denied", denial, { ...details, status });
    const hasType = Object.keys(headers).some((name) => name.toLowerCase() === "content-type");
    const typed = hasType ? headers : { ...headers, "Content-Type": "text/plain" };
    const reply = { status, headers: typed, body };
    return deny("denied", { ...denial, reply }, { ...details, status });
  }

  #fail(context: RequestContext, { why }: NoVerdict): Decision {
    this.#deps.count("failed");
    const details = { error: why };
    this.#deps.log.warn(
      { flow: context.flow.id, problem: why },
      "no verdict of the authorization service",
    );
    if (this.#config.failure_mode_allow) {
      if (!this.#config.failure_mode_allow_header_add) return allow("failure_mode_allow", details);
      context.headers.set(failureField, "true");
      return modify("failure_mode_allow", details);
    }
    return deny(
      "service_failed",
      {
        code: "policy.forbidden",
        message: "the authorization service gave no verdict (ext-authz: failure_mode_allow)",
        status: this.#config.status_on_error,
        unavailable: true,
      },
      details,
    );
  }
}

/** A message of HTTP has no room for what the parsers found. */
function includedIn({ http_service: http, include }: ExtAuthzConfig): ExtAuthzConfig["include"] {
  return http === undefined ? include : [];
}

/** Of this process: without a cache, two questions are never one. */
let questions = 0;

/** Why the message cannot be judged as its server will read it. */
function unreadable(context: RequestContext): Decision | undefined {
  if (context.stage === "connect") return undefined;
  const { ambiguous } = readPath(context.pathname, { slashIsData: true });
  if (ambiguous !== undefined) {
    const message = `the path can be read in more than one way: ${ambiguous}`;
    return deny("ambiguous_path", { code: "request.malformed", message });
  }
  // Whoever does not get the content of a message would judge another one.
  return context.unread === undefined ? undefined : deny("body_unread", context.unread);
}

function fieldChoiceOf(config: ExtAuthzConfig): FieldChoice {
  const { http_service: http, disallowed_headers: withheld } = config;
  const allowed = http?.authorization_request.allowed_headers ?? config.allowed_headers;
  if (http === undefined)
    return { allowed: StringMatcher.of(allowed), withheld: StringMatcher.of(withheld) };
  const always = ["authorization", "x-envoy-auth-partial-body"];
  const patterns = [...always, ...(allowed?.patterns ?? [])];
  return { allowed: new StringMatcher({ patterns }), withheld: StringMatcher.of(withheld) };
}
