/** Gets the token for one request: from what is remembered, or from the endpoint, and puts it into the request. */
import { hash } from "node:crypto";
import { credentialText, WatchedFile } from "../../files/watched-file.ts";
import type { DpopKeys } from "../../oauth/dpop-client.ts";
import { isOf } from "../../oauth/logout-token.ts";
import { understandRefusal } from "../../oauth/refusal-meaning.ts";
import { type Obtained, TokenCache, tokenCacheKey } from "../../oauth/token-cache.ts";
import { tokenDigest } from "../../oauth/token-checks.ts";
import { type Grant, TokenEndpoint } from "../../oauth/token-endpoint.ts";
import type { TokenResponse } from "../../oauth/token-response.ts";
import { type UnverifiedClaims, unverifiedClaims } from "../../oauth/unverified-claims.ts";
import { OnceForAll } from "../../pipeline/once-for-all.ts";
import {
  type Decision,
  type Logout,
  modify,
  type PluginDeps,
  type RequestContext,
} from "../../pipeline/plugin.ts";
import { Secret } from "../../secret.ts";
import { firstLabel } from "../config-values.ts";
import { ClientIdentity } from "../credentials/client-identity.ts";
import type { SecretSet } from "../credentials/secret-set.ts";
import { Placeholders } from "../credentials/shared-placeholders.ts";
import { withSubject } from "../credentials/subject.ts";
import { actorDenial, forItsActors } from "./actors.ts";
import { type TokenExchangeConfig, tokenUrlOf } from "./config.ts";
import { dpopKeys, keyOf } from "./credential.ts";
import { forItsAudience } from "./issued-audience.ts";
import { refusalOf } from "./refusal.ts";
import type { ExchangeRoute } from "./routes.ts";
import { SharedTokens } from "./shared-tokens.ts";
import { attach, type PutToken, type TokenRequest } from "./token-request.ts";

type Refused = Extract<Obtained, { kind: "refused" }>;

/** The client of token endpoints that one instance is. */
export class Exchanger {
  readonly #config: TokenExchangeConfig;
  readonly #deps: PluginDeps;
  readonly #tokenUrl: string;
  readonly #identity: ClientIdentity;
  readonly #actor: WatchedFile<Secret> | undefined;
  readonly #endpoint: TokenEndpoint;
  readonly #cache: TokenCache;
  readonly #dpop: DpopKeys;
  readonly #placeholders: Placeholders | undefined;
  readonly #shared: SharedTokens | undefined;

  constructor(config: TokenExchangeConfig, deps: PluginDeps, secrets: SecretSet) {
    this.#config = config;
    this.#deps = deps;
    this.#tokenUrl = tokenUrlOf(config);
    const clientSecret = secrets.get("identity.client_secret");
    this.#identity = new ClientIdentity(config.identity, { ...deps, clientSecret });
    if (config.actor_token_file !== undefined) {
      this.#actor = new WatchedFile({
        path: config.actor_token_file,
        clock: deps.clock,
        parse: (text) => new Secret(credentialText(text)),
        onProblem: (problem) => deps.log.warn({ problem }, "actor token file not usable"),
      });
    }
    this.#endpoint = new TokenEndpoint({ call: deps.fetch, clock: deps.clock });
    // What the key leaves out (scopes, audience, the subject) is part of every entry's own key.
    const { client_secret: _secret, ...identity } = config.identity;
    const parts = [this.#tokenUrl, JSON.stringify(identity)];
    const place = hash("sha256", tokenCacheKey(parts), "base64url");
    this.#cache = deps.carry(`tokens:${place}`, () => {
      const others = deps.isAlone ? undefined : new OnceForAll(deps.shared, `tokens:${place}`);
      return new TokenCache({ clock: deps.clock, others });
    });
    // Beside the tokens that are bound to them: both outlive a reload.
    this.#dpop = deps.carry("dpop-keys", () => dpopKeys(deps));
    this.#shared = config.share_tokens ? new SharedTokens(deps, place) : undefined;
    this.#placeholders = config.resolve_placeholders ? new Placeholders(deps) : undefined;
  }

  async start(): Promise<void> {
    await this.#placeholders?.start();
    await this.#shared?.start();
  }

  ready(): true | string {
    const identity = this.#identity.ready();
    if (identity !== true || this.#actor === undefined) return identity;
    return this.#actor.current() === undefined
      ? `actor token pending (${this.#actor.problem ?? "not read yet"})`
      : true;
  }

  forget(logout: Logout): number {
    return this.#cache.forget((token) => logout.tokens.has(token.digest) || isOf(token, logout));
  }

  /** What would be asked for, in words. */
  describe(context: RequestContext, route: ExchangeRoute): string {
    const { audience, scopes } = this.#wanted(context, route);
    const terms = [
      ...(audience === undefined ? [] : [`audience ${audience}`]),
      ...(scopes.length === 0 ? [] : [`scope ${scopes.join(" ")}`]),
    ];
    const wanted = terms.length === 0 ? "" : ` (${terms.join(", ")})`;
    return `${route.tokenUrl ?? this.#tokenUrl}${wanted}`;
  }

  /** Exchanges the token, or what it stands for; without `put` the issued one goes into Authorization. */
  exchange(
    context: RequestContext,
    route: ExchangeRoute,
    token: string,
    put?: PutToken,
  ): Decision | Promise<Decision> {
    const parts = { context, placeholders: this.#placeholders, deps: this.#deps };
    return withSubject(token, parts, (subjectToken) => {
      const actorToken = this.#actor?.current();
      const wanted = this.#wanted(context, route);
      const grant: Grant = { ...wanted, type: "token-exchange", subjectToken, actorToken };
      return this.#attachToken({ ...this.#tokenRequestOf(context, route, grant), put });
    });
  }

  /** Gives the request a token of the proxy's own. */
  grantOwn(context: RequestContext, route: ExchangeRoute): Decision | Promise<Decision> {
    const grant: Grant = { ...this.#wanted(context, route), type: "client-credentials" };
    return this.#attachToken(this.#tokenRequestOf(context, route, grant));
  }

  #wanted(
    context: RequestContext,
    route: ExchangeRoute,
  ): Pick<Grant, "audience" | "scopes" | "resource" | "dpop"> {
    const { audience_from_host: fromHost } = this.#config;
    const audience =
      route.audience ?? (fromHost ? firstLabel(context.destination.host) : undefined);
    const dpop = keyOf(this.#dpop, context, route.dpop ?? this.#config.dpop);
    return { audience, scopes: route.scopes, resource: route.resource, dpop };
  }

  #tokenRequestOf(context: RequestContext, route: ExchangeRoute, grant: Grant): TokenRequest {
    const url = route.tokenUrl ?? this.#tokenUrl;
    const scopes = grant.scopes.join(" ");
    const isExchange = grant.type === "token-exchange";
    const audiences = route.issuedAudiences ?? this.#config.issued_audiences;
    return {
      context,
      grant,
      audiences,
      url,
      key: tokenCacheKey([
        grant.type,
        isExchange ? grant.subjectToken.reveal() : undefined,
        isExchange ? grant.actorToken?.reveal() : undefined,
        this.#identity.clientId(),
        grant.audience,
        scopes,
        grant.resource,
        url,
        audiences,
        `${this.#config.issued_actors} ${this.#config.max_actors}`,
        grant.dpop?.thumbprint,
      ]),
      details: {
        route_matched: route.host === "" ? "false" : "true",
        route_host: context.destination.host,
        target_audience: grant.audience ?? "",
        requested_scopes: scopes,
      },
    };
  }

  #attachToken(tokenRequest: TokenRequest): Decision | Promise<Decision> {
    // A token that goes nowhere is not asked for.
    if (tokenRequest.context.isHypothetical) return modify("would_exchange", tokenRequest.details);
    const known = this.#cache.get(tokenRequest.key);
    if (known !== undefined) {
      this.#deps.count("cache_hit");
      return attach(tokenRequest, known, true, this.#deps.clock.now());
    }
    return this.#obtain(tokenRequest);
  }

  async #obtain(tokenRequest: TokenRequest): Promise<Decision> {
    const { grant, context } = tokenRequest;
    const isActorPending = this.#actor !== undefined && this.#actor.current() === undefined;
    const isPending = isActorPending || this.#identity.authentication() === undefined;
    const ready = isPending ? this.ready() : true;
    if (ready !== true) {
      return refusalOf(grant.type, { kind: "unavailable", reason: ready }, tokenRequest.details);
    }
    const isExchange = grant.type === "token-exchange";
    const text = isExchange ? grant.subjectToken.reveal() : undefined;
    const subject = text === undefined ? undefined : unverifiedClaims(text);
    const added = isExchange && grant.actorToken !== undefined ? 1 : 0;
    const denial = actorDenial(subject, added, this.#config);
    if (denial !== undefined) return denial;
    const proof = this.#identity.credential();
    const obtained = await this.#cache.obtain(
      {
        key: tokenRequest.key,
        proof,
        subjectExpiresAt: subject?.expiresAt,
        subject: subject?.subject,
        exchangedFor: text === undefined ? undefined : { ...subject, digest: tokenDigest(text) },
        load: (signal) => this.#load(tokenRequest, subject, signal),
      },
      context.signal,
    );
    if (obtained.kind === "refused") return this.#refuse(tokenRequest, obtained);
    const fromCache = obtained.source === "cache";
    this.#deps.count(fromCache ? "cache_hit" : "token_issued");
    return attach(tokenRequest, obtained, fromCache, this.#deps.clock.now());
  }

  /** Asks the endpoint, or finds what a replica was issued. */
  #load(
    { grant, url, key, audiences }: TokenRequest,
    subject: UnverifiedClaims | undefined,
    signal: AbortSignal,
  ): Promise<TokenResponse> {
    const ask = async (): Promise<TokenResponse> => {
      const client = this.#identity.authentication();
      if (client === undefined) return { kind: "unavailable", reason: "credentials pending" };
      this.#deps.count("endpoint_asked");
      const response = await this.#endpoint.request(url, client, grant, signal);
      const used = forItsAudience(response, grant, audiences);
      return forItsActors(used, subject?.actors ?? [], this.#config);
    };
    const isTold = grant.type !== "token-exchange" || subject?.issuer !== undefined;
    const isShareable = isTold && grant.dpop === undefined;
    return this.#shared?.obtain({ key, subject, isShareable }, ask) ?? ask();
  }

  #refuse(tokenRequest: TokenRequest, obtained: Refused): Decision {
    const { refused, source } = obtained;
    const flow = tokenRequest.context.flow.id;
    this.#deps.count(source === "cache" ? "rejection_repeated" : refused.kind);
    if (source === "endpoint" && refused.kind === "rejected") {
      const { status, error, description } = refused;
      const { meaning: refusal, remedy } = understandRefusal(refused, tokenRequest.grant.type);
      const fields = { flow, status, error, description, refusal, ...(remedy && { remedy }) };
      this.#deps.log.warn(fields, "token endpoint refused");
    } else if (refused.kind === "unavailable" && refused.reason !== "cancelled") {
      this.#deps.log.warn({ flow, reason: refused.reason }, "token endpoint not usable");
    }
    return refusalOf(tokenRequest.grant.type, refused, tokenRequest.details);
  }
}
