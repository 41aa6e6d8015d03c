/** One request's token: what is asked for, and what the request and its record are when it is there. */
import type { Grant } from "../../oauth/token-endpoint.ts";
import { type Decision, modify, type RequestContext } from "../../pipeline/plugin.ts";
import type { Secret } from "../../secret.ts";
import { attachToken } from "./credential.ts";
import type { AudienceCheck } from "./issued-audience.ts";

/** The token to ask for on behalf of one request, and how that is recorded. */
export interface TokenRequest {
  readonly context: RequestContext;
  readonly grant: Grant;
  readonly audiences: AudienceCheck;
  readonly url: string;
  readonly key: string;
  readonly details: Readonly<Record<string, string>>;
  /** Puts the token into the places that the file opens; returns why it cannot stand there. Absent: Authorization. */
  readonly put?: PutToken | undefined;
}

/** See {@link TokenRequest.put}. */
export type PutToken = (token: Secret) => Decision | undefined;

/** Puts the token into the request and the hop into its record. */
export function attach(
  tokenRequest: TokenRequest,
  obtained: { readonly token: Secret; readonly subject?: string | undefined },
  fromCache: boolean,
  now: number,
): Decision | Promise<Decision> {
  const { context, grant, details, put } = tokenRequest;
  const refused = put?.(obtained.token);
  if (refused !== undefined) return refused;
  const attaching =
    put === undefined ? attachToken(context, obtained.token, grant.dpop) : undefined;
  if (grant.type === "token-exchange") {
    context.delegation.push({
      // The endpoint has verified the subject token by answering, so its `sub` may label the hop.
      subject: context.identity?.subject ?? obtained.subject ?? "",
      audience: grant.audience ?? "",
      scopes: grant.scopes,
      at: now,
    });
  }
  const record = { ...details, cache_hit: fromCache ? "true" : "false" };
  const decision = modify(fromCache ? "cache_hit" : "token_replaced", record);
  return attaching instanceof Promise ? attaching.then(() => decision) : decision;
}
