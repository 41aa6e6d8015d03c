/**
 * A stub identity provider: JWKS, a token endpoint that exchanges anything, and `/mint`, which hands
 * the harness an inbound token. It counts its calls, so that a run can show that caches were used.
 */
import { generateKeyPairSync } from "node:crypto";
import { createServer } from "node:http";

import { SignJWT } from "jose";

import { announce, portOf } from "./ready.ts";

const LIFETIME_SECONDS = 3600;
const keys = generateKeyPairSync("rsa", { modulusLength: 2048 });
const jwk = { ...keys.publicKey.export({ format: "jwk" }), kid: "bench", alg: "RS256", use: "sig" };
const calls = { jwks: 0, token: 0 };

async function mint(issuer: string): Promise<string> {
  return await new SignJWT({ azp: "bench-client", scope: "openid bench" })
    .setProtectedHeader({ alg: "RS256", kid: "bench", typ: "JWT" })
    .setIssuer(issuer)
    .setSubject("bench-user")
    .setAudience("bench-agent")
    .setIssuedAt()
    .setExpirationTime("1h")
    .sign(keys.privateKey);
}

async function route(path: string, issuer: string): Promise<unknown> {
  switch (path) {
    case "/jwks":
      calls.jwks += 1;
      return { keys: [jwk] };
    case "/token":
      calls.token += 1;
      return {
        access_token: `exchanged-${calls.token}`,
        issued_token_type: "urn:ietf:params:oauth:token-type:access_token",
        token_type: "Bearer",
        expires_in: LIFETIME_SECONDS,
      };
    case "/mint":
      return { token: await mint(issuer) };
    case "/calls":
      return calls;
    case "/.well-known/openid-configuration":
      return { issuer, jwks_uri: `${issuer}/jwks`, token_endpoint: `${issuer}/token` };
    default:
      return undefined;
  }
}

const server = createServer((request, response) => {
  const issuer = `http://127.0.0.1:${portOf(server)}`;
  request.resume();
  route(request.url ?? "/", issuer).then(
    (body) => {
      response.writeHead(body === undefined ? 404 : 200, { "content-type": "application/json" });
      response.end(JSON.stringify(body ?? {}));
    },
    (error: unknown) => {
      response.writeHead(500).end(String(error));
    },
  );
});
server.listen(0, "127.0.0.1", () => announce({ http: portOf(server) }));
