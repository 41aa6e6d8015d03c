/** The input document of opa, as policies written for the Go program read it. */
import type { HeaderList } from "../../http/headers.ts";
import type { RequestContext } from "../../pipeline/plugin.ts";
import type { JsonObject } from "../parsers/policy-input.ts";

/** Credentials never reach a policy. */
const withheld: ReadonlySet<string> = new Set([
  "authorization",
  "proxy-authorization",
  "cookie",
  "set-cookie",
]);

/** The input of the policy for a request; `path` is the reading that is judged. */
export function requestInput(context: RequestContext, path: string): JsonObject {
  const { flow, stage, destination, identity } = context;
  const isOutbound = flow.direction === "outbound";
  const { tls: { peer } = {} } = flow.client;
  const host = isOutbound && stage === "request" ? destination.hostHeader : context.host;
  return {
    direction: flow.direction,
    method: context.method,
    path,
    host,
    headers: flatHeaders(context.headers),
    ...(peer === undefined ? {} : { peer: { spiffe_id: peer.spiffeId } }),
    ...(identity === undefined
      ? {}
      : {
          identity: {
            subject: identity.subject,
            client_id: identity.clientId ?? "",
            scopes: identity.scopes,
          },
        }),
  };
}

/** Lower-case names, values of repeated fields joined with ",", credentials left out. */
export function flatHeaders(headers: HeaderList): JsonObject {
  const flat: JsonObject = Object.create(null) as JsonObject;
  for (const [name, value] of headers.entries()) {
    const key = name.toLowerCase();
    if (withheld.has(key)) continue;
    const earlier = flat[key];
    flat[key] = typeof earlier === "string" ? `${earlier},${value}` : value;
  }
  return flat;
}
