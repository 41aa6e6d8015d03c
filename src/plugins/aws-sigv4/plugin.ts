/** aws-sigv4: takes signatures that agents made with stand-in keys, and signs the requests anew with real ones. */
import { durationMs } from "../../duration.ts";
import { messageOf } from "../../errors.ts";
import {
  type Answer,
  type Decision,
  definePlugin,
  deny,
  modify,
  observe,
  type Plugin,
  type PluginDeps,
  type RequestContext,
  skip,
} from "../../pipeline/plugin.ts";
import { originOf } from "../config-values.ts";
import { HostRoutes } from "../credentials/host-routes.ts";
import { isObjectStore, readTarget, unsignedPayload } from "./canonical.ts";
import { type Claim, isSigned, msOf, ownClaim, readClaim, timeOf } from "./claim.ts";
import {
  type AwsRule,
  awsSigv4Config,
  type AwsSigv4Config,
  keyUrlsOf,
  parseAwsRules,
  ruleProblems,
} from "./config.ts";
import { placeOf, scopeFault } from "./endpoint.ts";
import { type KeyPair, keyPairOf } from "./key-pair.ts";
import type { KeySource } from "./real-keys.ts";
import { KeysUnavailable, type RealKeys } from "./temporary-keys.ts";
import { Signer } from "./signer.ts";
import type { SigningKeys } from "./signing-keys.ts";
import { type Fault, formFault, needsBody, signatureFault } from "./verify.ts";

/** The definition that a pipeline names. */
export const awsSigv4 = definePlugin<AwsSigv4Config>({
  name: "aws-sigv4",
  description: "Signs requests to AWS anew with real keys, in place of an agent's stand-in keys",
  config: awsSigv4Config,
  body: { request: "read" },
  origins: (config) => keyUrlsOf(config).map(originOf),
  create: (config, deps) => new AwsSigv4(config, deps),
});

/** What a request was found to be, until it is signed. */
interface Taken {
  readonly claim: Claim;
  readonly pair: KeyPair;
  readonly standIn: SigningKeys | undefined;
  readonly isNew: boolean;
}

const statuses: Readonly<Record<string, number>> = {
  malformed: 400,
  "credentials-unavailable": 503,
};

class AwsSigv4 implements Plugin {
  readonly #config: AwsSigv4Config;
  readonly #deps: PluginDeps;
  readonly #pairs: ReadonlyMap<string, KeyPair>;
  readonly #routes: HostRoutes<AwsRule, AwsRule>;
  readonly #skewMs: number;
  readonly #taken = new WeakMap<RequestContext, Taken>();
  readonly #onEcho = (): void => this.#deps.count("echo_removed");

  constructor(config: AwsSigv4Config, deps: PluginDeps) {
    this.#config = config;
    this.#deps = deps;
    this.#skewMs = durationMs(config.clock_skew);
    const timeoutMs = durationMs(config.timeout);
    this.#pairs = new Map(
      config.keys.map((key) => [key.access_key_id, keyPairOf(key, deps, timeoutMs)]),
    );
    for (const { id, isVerified } of this.#pairs.values()) {
      if (!isVerified)
        deps.log.warn(
          { access_key_id: id },
          "the stand-in's secret_access_key is not set: signatures of agents are not verified, only their form",
        );
    }
    const ids = [...this.#pairs.keys()];
    this.#routes = new HostRoutes<AwsRule, AwsRule>({
      file: config.routes.file,
      rules: config.routes.rules,
      clock: deps.clock,
      parse: (text, file) => {
        const rules = parseAwsRules(text, file);
        const [problem] = rules.flatMap((rule) => ruleProblems(rule, ids));
        if (problem !== undefined) throw new Error(problem.message);
        return rules;
      },
      compile: (rule) => rule,
      onProblem: (problem) => deps.log.warn({ problem }, "routes file not usable"),
    });
  }

  /** Asks for the keys already, so that the first request need not wait; a source that fails refuses no start. */
  start(): Promise<void> {
    for (const { source } of this.#pairs.values()) void fetched(source);
    return Promise.resolve();
  }

  /** Only where the hash of the body is in no field; a body whose chunks are signed is streamed. */
  wantsBody(context: RequestContext): boolean {
    const route = this.#routes.find(context.destination.host);
    if (route === undefined) return false;
    const read = readClaim(context.headers, context.path);
    if (read === undefined)
      return (
        route.unsigned === "sign" &&
        !isObjectStore(placeOf(context.destination.host, route).service)
      );
    return read.kind === "signed" && needsBody(read.claim);
  }

  onRequest(context: RequestContext): Decision {
    const route = this.#routes.find(context.destination.host);
    if (route === undefined) return skip("host_not_listed");
    const refused = this.#take(context, route);
    if (refused !== undefined) return refused;
    const taken = this.#taken.get(context);
    if (taken === undefined) return skip("unsigned");
    const { claim, standIn, isNew } = taken;
    const details = { service: claim.scope.service, region: regionOf(claim), place: claim.place };
    if (isNew) return observe("unsigned", details);
    return observe(standIn === undefined ? "signature_read" : "signature_verified", details);
  }

  /** A message that nobody signed is taken for one that the agent has signed. */
  rehearseRequest(context: RequestContext): Decision {
    const route = this.#routes.find(context.destination.host);
    if (route === undefined) return skip("host_not_listed");
    if (isSigned(context.headers, context.path)) return this.onRequest(context);
    return this.#plaintext(context) ?? skip("not_signed_here");
  }

  describeCredential(context: RequestContext): string | Answer {
    const route = this.#routes.find(context.destination.host);
    if (route === undefined) return skip("host_not_listed");
    if (context.isOpen && !this.#taken.has(context)) return skip("unsigned");
    const ids = (route.keys.length === 0 ? [...this.#pairs.keys()] : route.keys).join(" or ");
    return `a signature with the real keys behind ${ids}, in place of the signature that the client has to make with it`;
  }

  onCredential(context: RequestContext): Answer | Promise<Answer> {
    const taken = this.#taken.get(context);
    if (taken === undefined) return undefined;
    try {
      const current = taken.pair.source.current();
      if (!(current instanceof Promise)) return this.#attach(context, taken, current);
      return current.then(
        (real) => this.#attach(context, taken, real),
        (error: unknown) => this.#unavailable(error),
      );
    } catch (error) {
      return this.#unavailable(error);
    }
  }

  ready(): true | string {
    for (const pair of this.#pairs.values()) {
      const problem = pair.source.problem();
      if (problem !== undefined) return `no real keys behind ${pair.id}: ${problem}`;
      const unknown = pair.problem();
      if (unknown !== undefined) return `no secret of the stand-in ${pair.id}: ${unknown}`;
    }
    return true;
  }

  #plaintext({ destination }: RequestContext): Decision | undefined {
    if (destination.scheme !== "http" || this.#config.allow_plaintext) return undefined;
    const why = `requests over plain HTTP are not signed (allow_plaintext)`;
    return this.#refuse("plaintext", why);
  }

  /** Takes the request's signature, or says why not; neither for one that passes as it is. */
  #take(context: RequestContext, route: AwsRule): Decision | undefined {
    const plaintext = this.#plaintext(context);
    if (plaintext !== undefined) return plaintext;
    const read = readClaim(context.headers, context.path);
    if (read === undefined) return this.#takeUnsigned(context, route);
    if (read.kind !== "signed")
      return this.#refuse(read.kind, `the signature is not taken: ${read.why}`);
    const { claim } = read;
    const pair = this.#pairs.get(claim.accessKeyId);
    if (pair === undefined || (route.keys.length > 0 && !route.keys.includes(pair.id))) {
      const why =
        "the request is not signed with a stand-in key for this host (keys of aws-sigv4, and of its rule)";
      return this.#refuse("unknown-key", why);
    }
    const scoped = this.#scopeFault(context, route, claim);
    if (scoped !== undefined) return scoped;
    const standIn = pair.standIn();
    if (pair.isVerified && standIn === undefined)
      return this.#unavailable(new KeysUnavailable("the stand-in's secret cannot be read"));
    // A connection that is open was asked for in time.
    const now = context.isOpen ? msOf(claim.time) : this.#deps.clock.now();
    const fault: Fault | undefined =
      formFault(claim, now, this.#skewMs) ??
      (standIn === undefined ? undefined : signatureFault(context, claim, standIn));
    if (fault !== undefined)
      return this.#refuse(fault.reason, `the signature is not taken: ${fault.why}`);
    this.#taken.set(context, { claim, pair, standIn, isNew: false });
    context.isResigned = true;
    return undefined;
  }

  #takeUnsigned(context: RequestContext, route: AwsRule): Decision | undefined {
    if (route.unsigned === "pass") return undefined;
    if (route.unsigned === "refuse") {
      const why = `the request to ${context.destination.host} is not signed: the agent signs with its stand-in key, or unsigned of the rule says otherwise`;
      return this.#refuse("unsigned", why);
    }
    const [id = ""] = route.keys.length === 0 ? [...this.#pairs.keys()] : route.keys;
    const pair = this.#pairs.get(id);
    const target = readTarget(context.path);
    if (pair === undefined) return this.#refuse("unknown-key", "no key is for this host");
    if (typeof target === "string")
      return this.#refuse("malformed", `the request cannot be signed: ${target}`);
    if (context.headers.has("authorization"))
      return this.#refuse("unsigned", "the request has a credential of another kind");
    const place = placeOf(context.destination.host, route);
    const isStreamed = context.hasBody && isObjectStore(place.service);
    const payload = isStreamed ? unsignedPayload : undefined;
    const time = timeOf(this.#deps.clock.now());
    const claim = ownClaim({ accessKeyId: id, ...place, time, payload, target });
    const scoped = this.#scopeFault(context, route, claim);
    if (scoped !== undefined) return scoped;
    this.#taken.set(context, { claim, pair, standIn: undefined, isNew: true });
    return undefined;
  }

  #scopeFault({ destination }: RequestContext, route: AwsRule, claim: Claim): Decision | undefined {
    const { services, regions, signing_name: signingName } = route;
    const why = scopeFault(destination.host, claim, { services, regions, signingName });
    return why === undefined ? undefined : this.#refuse("scope", `the request is refused: ${why}`);
  }

  #attach(context: RequestContext, taken: Taken, real: RealKeys): Decision {
    const { claim, standIn, isNew, pair } = taken;
    const { max_chunk_bytes: maxChunkBytes } = this.#config;
    const now = this.#deps.clock.now();
    // Servers repeat what they refuse, and redirect to the URL that they were asked for.
    const conceal = (text: string | undefined, instead: string): void =>
      context.concealInRefusals(text ?? "", instead, this.#onEcho);
    conceal(real.sessionToken?.reveal(), "STAND-IN-TOKEN");
    conceal(real.keys.accessKeyId, claim.accessKeyId);
    context.signer = new Signer({
      claim,
      real,
      standIn,
      now,
      maxChunkBytes,
      isNew,
      onSigned: (signature) => conceal(signature, claim.signature),
    });
    const { service } = claim.scope;
    return modify("signed", { key: pair.id, service, region: regionOf(claim) });
  }

  #unavailable(error: unknown): Decision {
    this.#deps.log.warn({ problem: messageOf(error) }, "a request could not be signed");
    const why = "the real keys cannot be had at the moment; the log of the proxy says why";
    return this.#refuse("credentials-unavailable", why);
  }

  #refuse(reason: string, message: string): Decision {
    const code = `aws-sigv4.${reason}`;
    const status = statuses[reason] ?? 403;
    return deny(reason.replace(/-/g, "_"), { code, message, status });
  }
}

function regionOf({ scope, regionSet }: Claim): string {
  return scope.region === "" ? regionSet.join(",") : scope.region;
}

async function fetched(source: KeySource): Promise<void> {
  try {
    await source.current();
  } catch {
    // It is in the log and in `ready`, and the next request asks again.
  }
}
