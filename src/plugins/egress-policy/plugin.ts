/** egress-policy: which executable may reach which host, path and method; what no rule allows is refused. */
import { durationMs } from "../../duration.ts";
import type { PeerProcess } from "../../net/kernel/peer-process.ts";
import {
  allow,
  type ApprovalGate,
  askPerson,
  type Decision,
  definePlugin,
  deny,
  type Message,
  type Plugin,
  PluginConfigError,
  type PluginDeps,
  type RequestContext,
} from "../../pipeline/plugin.ts";
import { DenialAggregate } from "../../policy/aggregate.ts";
import { unresolvedBinary } from "../../policy/binary-matcher.ts";
import type { CombinedPolicy, MessageNeeds } from "../../policy/combined-policy.ts";
import type { PolicyDecision } from "../../policy/decision.ts";
import {
  type ConnectFacts,
  parseQuery,
  type QueryFacts,
  type RequestFacts,
} from "../../policy/request-facts.ts";
import { websocketText } from "../../policy/rule.ts";
import { decideSpelling, type Spelling } from "../../policy/spelling.ts";
import { additionText, withSuggestions } from "../../policy/suggestion-text.ts";
import { egressPolicyConfig, type EgressPolicyConfig } from "./config.ts";
import { type BodyFacts, graphqlFacts, hasGraphqlQuery, readBodyFacts } from "./body.ts";
import { messageFacts } from "./message.ts";
import { addressesOf } from "./addresses.ts";
import { questionOf } from "./question.ts";
import { denialCode, remedyOf, toldOf } from "./remedy.ts";
import { makePolicy, maxPolicyBytes } from "./source.ts";
import { asSpelt, targetOf } from "./target.ts";
import { WatchedFile } from "../../files/watched-file.ts";

/** The definition that a pipeline names. */
export const egressPolicy = definePlugin<EgressPolicyConfig>({
  name: "egress-policy",
  description: "Default-deny rules over host, port, executable, method, path, query and operation",
  config: egressPolicyConfig,
  stages: ["connect", "request"],
  body: { request: "read" },
  create: (config, deps) => new EgressPolicy(config, deps),
});

const watchEveryMs = 1_000;

class EgressPolicy implements Plugin {
  readonly #config: EgressPolicyConfig;
  readonly #deps: PluginDeps;
  readonly #file: WatchedFile<CombinedPolicy> | undefined;
  readonly #fixed: CombinedPolicy | undefined;
  readonly #denials: DenialAggregate;
  readonly #gate: ApprovalGate | undefined;
  /** Callers that were counted as unresolved: one per connection. */
  readonly #counted = new WeakSet<PeerProcess>();
  #missingSince: number | undefined;
  #watch: NodeJS.Timeout | undefined;

  /** Throws a PluginConfigError with every problem of the policy. */
  constructor(config: EgressPolicyConfig, deps: PluginDeps) {
    this.#config = config;
    this.#deps = deps;
    this.#denials = deps.carry("denials", () => new DenialAggregate());
    this.#gate = deps.approvals?.gate(basisOf(config));
    if (config.policy_file === undefined) this.#fixed = this.#make();
    else this.#file = this.#open(config.policy_file);
  }

  #open(path: string): WatchedFile<CombinedPolicy> {
    let isInUse = false;
    let problem: unknown;
    const file = new WatchedFile({
      path,
      clock: this.#deps.clock,
      maxBytes: maxPolicyBytes,
      parse: (text) => {
        const policy = this.#make(text);
        // The value is in use when this turn ends.
        if (isInUse) queueMicrotask(() => this.#deps.changed());
        return policy;
      },
      onProblem: (message, isMissing, error) => {
        const path = ["policy_file"];
        problem =
          error instanceof PluginConfigError ? error : new PluginConfigError([{ path, message }]);
        this.#missingSince = isMissing ? (this.#missingSince ?? this.#deps.clock.now()) : undefined;
        if (!isInUse) return;
        this.#deps.count("policy_rejected");
        this.#deps.log.error({ problem: message }, "policy file not used, the last good one stays");
      },
    });
    if (file.current() === undefined) throw problem;
    isInUse = true;
    return file;
  }

  #make(text?: string): CombinedPolicy {
    const { policy, warnings } = makePolicy(this.#config, text);
    if (text !== undefined) this.#gate?.rebase(basisOf(this.#config, text));
    for (const warning of warnings) this.#deps.log.warn({ warning }, "policy warning");
    this.#deps.count("policy_loaded");
    return policy;
  }

  start(): Promise<void> {
    // Who is not asked would not look: a tunnel must end when the file stops allowing it.
    if (this.#file !== undefined) {
      this.#watch = setInterval(() => this.#file?.current(), watchEveryMs).unref();
    }
    return Promise.resolve();
  }

  close(): void {
    clearInterval(this.#watch);
  }

  get #policy(): CombinedPolicy {
    const policy = this.#fixed ?? this.#file?.current();
    if (policy === undefined) throw new Error("there is no policy");
    return policy;
  }

  wantsBody({ destination }: RequestContext): boolean {
    const needs = this.#policy.inspectionOf(destination.host, destination.port);
    return needs.asks || needs.readsBodies;
  }

  callerLinks(): readonly string[] | undefined {
    const policy = this.#policy;
    return policy.needsCaller ? policy.binaryPaths : undefined;
  }

  observations(): unknown {
    const denials = withSuggestions(this.#denials.summaries(), this.#policy.keys);
    return { denials, dropped: this.#denials.dropped };
  }

  addition: NonNullable<Plugin["addition"]> = (chosen, observed) => {
    const text = additionText(observed, this.#policy.keys, chosen);
    return text === undefined ? undefined : { text, file: this.#config.policy_file };
  };

  ready(): true | string {
    this.#file?.current();
    if (this.#file?.problem === undefined) this.#missingSince = undefined;
    const missingMs = this.#deps.clock.now() - (this.#missingSince ?? this.#deps.clock.now());
    return missingMs < durationMs(this.#config.missing_after ?? "60s")
      ? true
      : `policy file ${this.#config.policy_file ?? ""} has been missing for ${Math.round(missingMs / 1000)} s`;
  }

  onRequest(context: RequestContext): Decision | Promise<Decision> {
    const facts = this.#factsOf(context);
    if (facts === undefined) return this.#refuseCaller(context);
    const policy = this.#policy;
    if (context.stage === "request") return this.#judgeRequest(context, policy, facts);
    const decision = policy.evaluateConnect(facts);
    const { grant, entry } = decision;
    if (grant?.inspect === true) context.tunnelTerms.mustInspect = `policy '${entry ?? ""}'`;
    if (grant?.tls === "skip") context.tunnelTerms.keepTls = true;
    return this.#decisionFor(context, facts, decision);
  }

  needsMessages(context: RequestContext): boolean {
    return this.#messagesOf(context) !== undefined;
  }

  onMessage(context: RequestContext, message: Message): Decision | undefined {
    const connection = this.#factsOf(context);
    if (connection === undefined) return this.#refuseCaller(context);
    const { spelling, query } = this.#upgradeOf(context);
    const needs = this.#policy.messagesOf(connection.host, connection.port, spelling.readings);
    const read = messageFacts(message, needs);
    if (read === undefined) return undefined;
    const [path] = spelling.readings;
    const facts: RequestFacts = { ...connection, method: websocketText, path, query, ...read };
    const judged = this.#decide(this.#policy, facts, spelling);
    const decision = judged.audited ?? judged;
    // A connection may have any number of them: those that are good leave no record. Its upgrade was approved.
    if (decision.effect === "allow" || decision.code === "approval-of-host") return undefined;
    const decided = this.#said(facts, decision, facts);
    if (decided.action === "deny") {
      const details = { flow: context.flow.id, reason: decision.reason, ...decided.details };
      this.#deps.log.warn(details, "WebSocket message refused");
    }
    return decided;
  }

  #messagesOf(context: RequestContext): MessageNeeds | undefined {
    if (context.upgrade === undefined) return undefined;
    const { host, port } = context.destination;
    return this.#policy.messagesOf(host, port, this.#upgradeOf(context).spelling.readings);
  }

  /** What the path of an upgrade may be, and its query, which every message on it is judged with. */
  #upgradeOf(context: RequestContext): UpgradeFacts {
    return context.stateOf(this, () => {
      const target = targetOf(context, { judgesRequests: true });
      // Under on_error: observe even what has no single reading was let through.
      const { spelling, query } =
        target.kind === "refused" ? { spelling: asSpelt(context.pathname), query: "" } : target;
      return { spelling, query: parseQuery(query) };
    });
  }

  /** What is known of the connection and its caller; undefined when that must be refused. */
  #factsOf({ flow, destination }: RequestContext): ConnectFacts | undefined {
    const { host, port } = destination;
    const { caller, process: peer } = flow.client;
    if (peer === undefined) return { host, port, caller };
    if (peer.kind === "violation") return undefined;
    if (peer.kind === "resolved") {
      const { executable: binary, pid: binaryPid, ancestors, aliases, commandLine: cmdline } = peer;
      return { host, port, caller, binary, binaryPid, ancestors, aliases, cmdline };
    }
    if (!this.#counted.has(peer)) {
      this.#counted.add(peer);
      this.#deps.count("caller_unresolved");
    }
    return { host, port, caller, binary: unresolvedBinary };
  }

  #judgeRequest(
    context: RequestContext,
    policy: CombinedPolicy,
    facts: ConnectFacts,
  ): Decision | Promise<Decision> {
    const { method } = context;
    const needs = policy.inspectionOf(facts.host, facts.port);
    const target = targetOf(context, needs);
    if (target.kind === "refused") {
      return deny("ambiguous_path", { code: "request.malformed", message: target.reason });
    }
    const { spelling } = target;
    const [path] = spelling.readings;
    const query = parseQuery(target.query);
    const judge = (body: BodyFacts): Decision | Promise<Decision> => {
      const request: RequestFacts = { ...facts, method, path, query, ...body };
      return this.#decisionFor(context, facts, this.#decide(policy, request, spelling), request);
    };
    if (needs.readsBodies) return readBodyFacts(context, needs, query).then(judge);
    // What may not be asked in a message may not be asked in the query of a plain GET either.
    const isOperation =
      context.upgrade === undefined &&
      needs.protocols.has("websocket") &&
      policy.messagesOf(facts.host, facts.port, spelling.readings)?.areOperations === true &&
      hasGraphqlQuery(query);
    return judge(isOperation ? { graphql: graphqlFacts(context, "there is no body", query) } : {});
  }

  #decide(policy: CombinedPolicy, facts: RequestFacts, spelling: Spelling): PolicyDecision {
    return decideSpelling(spelling, (path) =>
      policy.evaluateRequest(path === facts.path ? facts : { ...facts, path }),
    );
  }

  #decisionFor(
    context: RequestContext,
    facts: ConnectFacts,
    decision: PolicyDecision,
    request?: RequestFacts,
  ): Decision | Promise<Decision> {
    const { grant } = decision;
    const ranges = grant === undefined ? undefined : addressesOf(facts, grant);
    if (ranges !== undefined) context.limitAddresses(ranges);
    if (decision.effect !== "ask") return this.#said(facts, decision, request);
    // The CONNECT that carries it has been approved.
    if (decision.code === "approval-of-host" && context.flow.parentId !== undefined)
      return decision.audited === undefined
        ? allow("approved_tunnel")
        : this.#said(facts, decision.audited, request);
    const told = toldOf(facts, decision, request);
    return askPerson(this.#gate, context, questionOf(decision, told, this.#policy.keys));
  }

  /** What becomes of what nobody is asked about, with its records. */
  #said(facts: ConnectFacts, decision: PolicyDecision, request?: RequestFacts): Decision {
    const { effect, code, reason, entry, rule } = decision;
    const where = {
      ...(entry === undefined ? {} : { policy: entry }),
      ...(rule === undefined ? {} : { rule }),
    };
    const details = { ...where, code, binary: facts.binary ?? unresolvedBinary };
    if (effect === "allow") return allow("policy_allowed", details);
    const told = toldOf(facts, decision, request);
    this.#denials.record(told, this.#deps.clock.now());
    if (effect === "audit") {
      this.#deps.count("audited");
      this.#deps.log.warn({ ...details, reason }, "policy violation let through (audit)");
      return allow("policy_audited", { ...details, violation: reason });
    }
    this.#deps.count("denied");
    const said = { code: denialCode(decision), message: reason };
    const denial = { ...said, details: { ...where, reason: code, ...remedyOf(told) } };
    return deny(code.replaceAll("-", "_"), denial, details);
  }

  #refuseCaller({ flow }: RequestContext): Decision {
    const peer = flow.client.process;
    this.#deps.count("caller_violation");
    const message = peer?.kind === "violation" ? peer.message : "the caller cannot be trusted";
    return deny("caller_violation", { code: "policy.forbidden", message });
  }
}

/** Everything that the verdicts depend on. */
function basisOf(config: EgressPolicyConfig, text = ""): string {
  return JSON.stringify([config, text]);
}

/** What every message of one connection has in common. */
interface UpgradeFacts {
  readonly spelling: Spelling;
  readonly query: QueryFacts;
}
