/**
 * A real authorization server for the demo: oidc-provider with JWT access tokens per audience and the token exchange
 * grant of RFC 8693. It has its own store, keys and accounts, so that none of oidc-provider's development defaults is
 * used and it has nothing to warn about.
 */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import {
  createLocalJWKSet,
  type CryptoKey,
  exportJWK,
  generateKeyPair,
  type JWK,
  jwtVerify,
  SignJWT,
} from "jose";
import { type Adapter, type AdapterPayload, errors, Provider } from "oidc-provider";

const exchangeGrant = "urn:ietf:params:oauth:grant-type:token-exchange";
const accessTokenType = "urn:ietf:params:oauth:token-type:access_token";
/** Stands for the browser in which a user logs in, which a program on a terminal does not have. */
const loginGrant = "urn:authbridge-proxy:demo:login";
const frontend = { id: "frontend", secret: "frontend-secret" };

/** Which client may exchange a user's token for which audience, and the scopes that the audience knows. */
const exchangePolicy: Readonly<Record<string, readonly string[]>> = { agent: ["tickets-api"] };
const scopesOf: Readonly<Record<string, string>> = {
  agent: "chat",
  "tickets-api": "tickets.read tickets.write",
};

/** What a demo needs of its authorization server. */
export interface AuthorizationServer {
  readonly issuer: string;
  /** The secret of the client `agent`, which is the proxy. */
  readonly clientSecret: string;
  /** How often the token endpoint was asked for an exchange. */
  exchanges(): number;
  /** A user's access token for an audience, as a frontend gets it. */
  login(user: string, audience: string): Promise<string>;
  /** A token that was good until a minute ago. */
  expiredToken(user: string, audience: string): Promise<string>;
  /** A token that says everything right and is signed by somebody else. */
  forgedToken(user: string, audience: string): Promise<string>;
  close(): Promise<void>;
}

/** Starts it on a free port of loopback. */
export async function startAuthorizationServer(): Promise<AuthorizationServer> {
  const key = await generateKeyPair("ES256", { extractable: true });
  const foreignKey = await generateKeyPair("ES256");
  const jwk = { ...(await exportJWK(key.privateKey)), kid: "demo-1", alg: "ES256", use: "sig" };
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const issuer = originOf(server);
  const clientSecret = crypto.randomUUID();
  const provider = makeProvider(issuer, jwk, clientSecret);
  const verify = async (token: string): Promise<{ subject: string; audience: string }> => {
    const { kty = "", crv = "", x = "", y = "" } = jwk;
    const keys = createLocalJWKSet({ keys: [{ kty, crv, x, y, kid: jwk.kid, alg: jwk.alg }] });
    const { payload } = await jwtVerify(token, keys, { issuer, algorithms: ["ES256"] });
    return { subject: payload.sub ?? "", audience: String(payload.aud) };
  };
  let exchanges = 0;
  registerLogin(provider);
  registerExchange(provider, verify, () => (exchanges += 1));
  const answer = provider.callback();
  server.on("request", (request, response) => void answer(request, response));

  const sign = (signer: CryptoKey, user: string, audience: string, lifeSeconds: number) => {
    const now = Math.floor(Date.now() / 1000);
    return new SignJWT({ client_id: frontend.id, scope: scopesOf[audience] ?? "" })
      .setProtectedHeader({ alg: "ES256", kid: jwk.kid, typ: "at+jwt" })
      .setIssuer(issuer)
      .setSubject(user)
      .setAudience(audience)
      .setIssuedAt(now - 3_600)
      .setExpirationTime(now + lifeSeconds)
      .sign(signer);
  };
  return {
    issuer,
    clientSecret,
    exchanges: () => exchanges,
    login: (user, audience) => login(issuer, user, audience),
    expiredToken: (user, audience) => sign(key.privateKey, user, audience, -60),
    forgedToken: (user, audience) => sign(foreignKey.privateKey, user, audience, 3_600),
    close: () => closeServer(server),
  };
}

function makeProvider(issuer: string, jwk: JWK, agentSecret: string): Provider {
  const client = {
    redirect_uris: [],
    response_types: [],
    token_endpoint_auth_method: "client_secret_post" as const,
  };
  return new Provider(issuer, {
    adapter: MemoryStore,
    jwks: { keys: [jwk] },
    clientDefaults: { id_token_signed_response_alg: "ES256" },
    clients: [
      {
        ...client,
        client_id: frontend.id,
        client_secret: frontend.secret,
        grant_types: [loginGrant],
      },
      { ...client, client_id: "agent", client_secret: agentSecret, grant_types: [exchangeGrant] },
    ],
    scopes: Object.values(scopesOf).flatMap((scopes) => scopes.split(" ")),
    features: { devInteractions: { enabled: false } },
    findAccount: (_context, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    ttl: { AccessToken: 3_600 },
    // RFC 8693 section 4.1: the exchanged token says who acts for its subject.
    extraTokenClaims: (context) =>
      context.oidc.params?.["grant_type"] === exchangeGrant
        ? { act: { sub: context.oidc.client?.clientId } }
        : undefined,
  });
}

function registerLogin(provider: Provider): void {
  provider.registerGrantType<{ username?: string; audience?: string }>(
    loginGrant,
    async (context) => {
      const { username = "", audience = "" } = context.oidc.params;
      if (username === "") throw new errors.InvalidRequest("username is missing");
      const token = await mint(provider, context, { subject: username, audience });
      context.body = {
        access_token: token.value,
        token_type: "Bearer",
        expires_in: token.expiresIn,
      };
    },
    ["username", "audience"],
  );
}

function registerExchange(
  provider: Provider,
  verify: (token: string) => Promise<{ subject: string; audience: string }>,
  onExchange: () => void,
): void {
  provider.registerGrantType<Record<string, string | undefined>>(
    exchangeGrant,
    async (context) => {
      onExchange();
      const { client, params } = context.oidc;
      if (params["subject_token_type"] !== accessTokenType) {
        throw new errors.InvalidRequest("subject_token_type must be an access token");
      }
      // RFC 8693 section 2.2.2: a subject token that is no good is an invalid_request.
      const subject = await verify(params["subject_token"] ?? "").catch(() => {
        throw new errors.InvalidRequest("subject_token is not valid");
      });
      // Only who a token was given to may exchange it: the agent cannot trade tokens that it found somewhere.
      if (subject.audience !== client.clientId) {
        throw new errors.InvalidRequest("subject_token is not for this client");
      }
      const audience = params["audience"] ?? "";
      if (exchangePolicy[client.clientId]?.includes(audience) !== true)
        throw new errors.InvalidTarget();
      const token = await mint(provider, context, {
        subject: subject.subject,
        audience,
        wanted: params.scope,
      });
      context.body = {
        access_token: token.value,
        issued_token_type: accessTokenType,
        token_type: "Bearer",
        expires_in: token.expiresIn,
        scope: token.scope,
      };
    },
    ["subject_token", "subject_token_type", "requested_token_type", "audience", "scope"],
  );
}

interface TokenOrder {
  readonly subject: string;
  readonly audience: string;
  /** Scopes; all of the audience's when absent. */
  readonly wanted?: string | undefined;
}

interface MintedToken {
  readonly value: string;
  readonly expiresIn: number;
  readonly scope: string;
}

type GrantContext = Parameters<Parameters<Provider["registerGrantType"]>[1]>[0];

async function mint(
  provider: Provider,
  context: Pick<GrantContext, "oidc">,
  { subject, audience, wanted = "" }: TokenOrder,
): Promise<MintedToken> {
  const known = scopesOf[audience];
  if (known === undefined) throw new errors.InvalidTarget();
  const scope = wanted === "" ? known : wanted;
  const excess = scope.split(" ").find((word) => !known.split(" ").includes(word));
  if (excess !== undefined) throw new errors.InvalidScope("not a scope of this audience", excess);
  const token = new provider.AccessToken({
    client: context.oidc.client,
    accountId: subject,
    grantId: crypto.randomUUID(),
    gty: "demo",
    scope,
    resourceServer: new provider.ResourceServer(`urn:demo:${audience}`, {
      scope: known,
      audience,
      accessTokenFormat: "jwt",
      jwt: { sign: { alg: "ES256" } },
    }),
  });
  return { value: await token.save(), expiresIn: token.expiration, scope };
}

async function login(issuer: string, username: string, audience: string): Promise<string> {
  const response = await fetch(`${issuer}/token`, {
    method: "POST",
    body: new URLSearchParams({
      grant_type: loginGrant,
      client_id: frontend.id,
      client_secret: frontend.secret,
      username,
      audience,
    }),
  });
  const answer = (await response.json()) as { access_token?: string; error_description?: string };
  if (answer.access_token === undefined) {
    throw new Error(`the authorization server gave no token: ${answer.error_description}`);
  }
  return answer.access_token;
}

/** Where oidc-provider keeps what it issues; its own in-memory store is for development and says so. */
class MemoryStore implements Adapter {
  readonly #entries = new Map<string, AdapterPayload>();

  upsert(id: string, payload: AdapterPayload): Promise<void> {
    this.#entries.set(id, payload);
    return Promise.resolve();
  }

  find(id: string): Promise<AdapterPayload | undefined> {
    return Promise.resolve(this.#entries.get(id));
  }

  findByUserCode(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  findByUid(): Promise<undefined> {
    return Promise.resolve(undefined);
  }

  consume(): Promise<void> {
    return Promise.resolve();
  }

  destroy(id: string): Promise<void> {
    this.#entries.delete(id);
    return Promise.resolve();
  }

  revokeByGrantId(): Promise<void> {
    return Promise.resolve();
  }
}

function originOf(server: Server): string {
  const { port } = server.address() as AddressInfo;
  return `http://127.0.0.1:${port}`;
}

async function closeServer(server: Server): Promise<void> {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
}
