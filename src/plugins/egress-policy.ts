/** egress-policy: which executable may reach which host, path and method; what no rule allows is refused. */
import { durationMs } from "../duration.ts";
import { canonicalPath } from "../http/path.ts";
import type { PeerProcess } from "../net/peer-process.ts";
import {
  allow,
  type BodyAccess,
  type Decision,
  definePlugin,
  deny,
  type Plugin,
  type PluginDeps,
  type RequestContext,
} from "../pipeline/plugin.ts";
import { DenialAggregate } from "../policy/aggregate.ts";
import { type CallerFacts, unresolvedBinary } from "../policy/binary-matcher.ts";
import type { CombinedPolicy } from "../policy/combined-policy.ts";
import type { PolicyDecision } from "../policy/decision.ts";
import { type ConnectFacts, parseQuery, type RequestFacts } from "../policy/request-facts.ts";
import { egressPolicyConfig, type EgressPolicyConfig } from "./egress-policy-config.ts";
import { readBodyFacts } from "./policy-body.ts";
import { makePolicy } from "./policy-source.ts";
import { WatchedFile } from "./watched-file.ts";

/** The definition that a chain names. */
export const egressPolicy = definePlugin<EgressPolicyConfig>({
  name: "egress-policy",
  description: "Default-deny rules over host, port, executable, method, path, query and operation",
  config: egressPolicyConfig,
  stages: ["connect", "request"],
  body: { request: "read" },
  create: (config, deps) => new EgressPolicy(config, deps),
});

/** 10,000 endpoints take about 2 MiB. */
const maxFileBytes = 16 * 1024 * 1024;
const rank = { allow: 0, audit: 1, deny: 2 } as const;

class EgressPolicy implements Plugin {
  readonly body: BodyAccess;
  readonly #config: EgressPolicyConfig;
  readonly #deps: PluginDeps;
  readonly #file: WatchedFile<CombinedPolicy> | undefined;
  readonly #fixed: CombinedPolicy | undefined;
  readonly #denials: DenialAggregate;
  /** Callers that were counted as unresolved: one per connection. */
  readonly #counted = new WeakSet<PeerProcess>();
  #readsBodies = true;
  #missingSince: number | undefined;

  /** Throws an Error with every problem of the policy. */
  constructor(config: EgressPolicyConfig, deps: PluginDeps) {
    this.#config = config;
    this.#deps = deps;
    this.#denials = deps.carry("denials", () => new DenialAggregate());
    const { policy_file: path } = config;
    let first: CombinedPolicy | undefined;
    if (path === undefined) first = this.#fixed = this.#make();
    else {
      let problem: string | undefined;
      this.#file = new WatchedFile({
        path,
        clock: deps.clock,
        maxBytes: maxFileBytes,
        parse: (text) => this.#make(text),
        onProblem: (message, isMissing) => {
          problem = message;
          if (isMissing) this.#missingSince ??= deps.clock.now();
          if (first === undefined) return;
          deps.count("policy_rejected");
          deps.log.error({ problem: message }, "policy file not used, the last good one stays");
        },
      });
      first = this.#file.current();
      if (first === undefined) throw new Error(problem ?? `${path}: not read`);
    }
    this.#readsBodies = first.needsBodies;
    this.body = this.#readsBodies ? { request: "read" } : {};
  }

  #make(text?: string): CombinedPolicy {
    const { policy, warnings } = makePolicy(this.#config, text);
    // The pipeline knew at its start whether bodies must be in memory; it cannot be told otherwise later.
    if (policy.needsBodies && !this.#readsBodies) {
      throw new Error("endpoints that judge bodies need a reload of the configuration");
    }
    for (const warning of warnings) this.#deps.log.warn({ warning }, "policy warning");
    this.#deps.count("policy_loaded");
    return policy;
  }

  get #policy(): CombinedPolicy {
    const policy = this.#fixed ?? this.#file?.current();
    if (policy === undefined) throw new Error("there is no policy");
    return policy;
  }

  callerLinks(): readonly string[] | undefined {
    const policy = this.#policy;
    return policy.needsCaller ? policy.binaryPaths : undefined;
  }

  ready(): true | string {
    this.#file?.current();
    if (this.#file?.problem === undefined) this.#missingSince = undefined;
    const missingMs = this.#deps.clock.now() - (this.#missingSince ?? this.#deps.clock.now());
    return missingMs < durationMs(this.#config.missing_after)
      ? true
      : `policy file ${this.#config.policy_file ?? ""} has been missing for ${Math.round(missingMs / 1000)} s`;
  }

  async onRequest(context: RequestContext): Promise<Decision> {
    const { host, port } = context.destination;
    const caller = this.#callerOf(context.flow.client.process);
    if (caller === undefined) return this.#refuseCaller(context);
    const { caller: name } = context.flow.client;
    const facts: ConnectFacts = {
      host,
      port,
      ...caller,
      ...(name === undefined ? {} : { caller: name }),
    };
    const policy = this.#policy;
    if (context.stage === "request") return this.#judgeRequest(context, policy, facts);
    const decision = policy.evaluateConnect(facts);
    const { grant, entry } = decision;
    if (grant?.inspect === true) context.tunnelTerms.mustInspect = `policy '${entry ?? ""}'`;
    if (grant?.tls === "skip") context.tunnelTerms.keepTls = true;
    return this.#answer(facts, decision);
  }

  async #judgeRequest(
    context: RequestContext,
    policy: CombinedPolicy,
    facts: ConnectFacts,
  ): Promise<Decision> {
    const { method, pathname } = context;
    const canonical = canonicalPath(pathname);
    const { ambiguous } = canonical;
    if (ambiguous !== undefined && !isEncodedSlashOnly(pathname, canonical.path)) {
      return deny("ambiguous_path", { code: "request.malformed", message: ambiguous });
    }
    const query = parseQuery(context.path.slice(pathname.length));
    const needs = policy.inspectionOf(facts.host, facts.port);
    const body = await readBodyFacts(context, needs, query);
    const request: RequestFacts = { ...facts, method, path: canonical.path, query, ...body };
    let decision = policy.evaluateRequest(request);
    if (canonical.withoutParameters !== undefined) {
      // A server may cut parameters off: the stricter reading counts.
      const other = policy.evaluateRequest({ ...request, path: canonical.withoutParameters });
      if (rank[other.effect] > rank[decision.effect]) decision = other;
    }
    return this.#answer(facts, decision, request);
  }

  #answer(facts: ConnectFacts, decision: PolicyDecision, request?: RequestFacts): Decision {
    const { effect, code, reason, entry, rule, inspection } = decision;
    const where = {
      ...(entry === undefined ? {} : { policy: entry }),
      ...(rule === undefined ? {} : { rule }),
    };
    const details = { ...where, code, binary: facts.binary ?? unresolvedBinary };
    if (effect !== "allow") {
      this.#denials.record(
        {
          host: facts.host,
          port: facts.port,
          code,
          ...(facts.binary === undefined ? {} : { binary: facts.binary }),
          ...(entry === undefined ? {} : { entry }),
          ...(rule === undefined ? {} : { rule }),
          ...(inspection === undefined ? {} : { protocol: inspection.protocol }),
          ...(request === undefined ? {} : { method: request.method, path: request.path }),
        },
        this.#deps.clock.now(),
      );
    }
    if (effect === "allow") return allow("policy_allowed", details);
    if (effect === "audit") {
      this.#deps.count("audited");
      this.#deps.log.warn({ ...details, reason }, "policy violation let through (audit)");
      return allow("policy_audited", { ...details, violation: reason });
    }
    this.#deps.count("denied");
    const denial = {
      code: denialCode(decision),
      message: reason,
      details: { ...where, reason: code },
    };
    return deny(code.replaceAll("-", "_"), denial, details);
  }

  /** What is known of the caller; undefined when it must be refused. */
  #callerOf(peer: PeerProcess | undefined): CallerFacts | undefined {
    if (peer === undefined) return {};
    if (peer.kind === "violation") return undefined;
    if (peer.kind === "resolved") {
      const { executable, pid, ancestors, aliases, commandLine } = peer;
      return { binary: executable, binaryPid: pid, ancestors, aliases, cmdline: commandLine };
    }
    if (!this.#counted.has(peer)) {
      this.#counted.add(peer);
      this.#deps.count("caller_unresolved");
    }
    return { binary: unresolvedBinary };
  }

  #refuseCaller({ flow }: RequestContext): Decision {
    const peer = flow.client.process;
    this.#deps.count("caller_violation");
    const message = peer?.kind === "violation" ? peer.message : "the caller cannot be trusted";
    return deny("caller_violation", { code: "policy.forbidden", message });
  }
}

function denialCode({ code }: PolicyDecision): string {
  if (code === "malformed") return "request.malformed";
  return code === "body-too-large" ? "request.body-too-large" : "policy.forbidden";
}

/** True when nothing but encoded slashes makes the path ambiguous; endpoints then say whether they allow them. */
function isEncodedSlashOnly(pathname: string, canonical: string): boolean {
  if (!/%2f/i.test(pathname)) return false;
  const segments = canonical.split(/\/|%2F/);
  if (segments.some((segment) => /^\.{1,2}(?:;|%3B|$)/.test(segment))) return false;
  return canonicalPath(pathname.replaceAll(/%2f/gi, "x")).ambiguous === undefined;
}
