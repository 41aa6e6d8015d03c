/** The services that the agent calls: one that insists on tokens made for it, and one that shows what it got. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { createRemoteJWKSet, decodeJwt, type JWTPayload, jwtVerify } from "jose";

/** A running service. */
export interface TargetApi {
  readonly port: number;
  /** What the token of the latest request said, in words; undefined when there was no request since the last call. */
  takeSeen(): string | undefined;
  close(): Promise<void>;
}

/** Who may call. Without an audience every request is answered, and the token only looked at. */
export interface TargetOptions {
  readonly issuer: string;
  readonly audience?: string;
}

/** Starts the service on a free port of loopback. */
export async function startTargetApi({ issuer, audience }: TargetOptions): Promise<TargetApi> {
  const keys = createRemoteJWKSet(new URL(`${issuer}/jwks`));
  let seen: string | undefined;
  const answer = async (authorization: string | undefined): Promise<[number, unknown]> => {
    const token = authorization?.replace(/^Bearer /i, "");
    const claims = token === undefined ? undefined : decodeJwt(token);
    seen = describe(claims);
    if (audience === undefined) return [200, { tickets: [], saw: seen }];
    try {
      const { payload } = await jwtVerify(token ?? "", keys, { issuer, audience });
      return [200, { tickets: [`one of ${payload.sub}`], saw: seen }];
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      return [401, { error: "target.unauthorized", message, saw: seen }];
    }
  };
  const server: Server = createServer((request, response) => {
    void answer(request.headers.authorization).then(([status, body]) => {
      response.writeHead(status, { "Content-Type": "application/json" });
      response.end(JSON.stringify(body));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    takeSeen: () => {
      const last = seen;
      seen = undefined;
      return last;
    },
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function describe(claims: JWTPayload | undefined): string {
  if (claims === undefined) return "no token";
  const actor = claims["act"] as { sub?: string } | undefined;
  return `aud=${String(claims.aud)} sub=${claims.sub}${actor === undefined ? "" : ` act=${actor.sub}`}`;
}
