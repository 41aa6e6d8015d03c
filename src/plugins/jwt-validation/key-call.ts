/** The way to the keys of an issuer: HTTP, or the Workload API where the issuer is a SPIFFE trust domain. */
import { ProxyError } from "../../errors.ts";
import type { OperatorFetch } from "../../http/operator-fetch.ts";
import { trustDomainOfIssuer } from "../../oauth/token-checks.ts";
import type { PluginDeps } from "../../pipeline/plugin.ts";

/** Answers for an address such as `spiffe://example.org` with the key set of that trust domain. */
export function keyCallOf({
  fetch,
  jwtBundles,
}: Pick<PluginDeps, "fetch" | "jwtBundles">): OperatorFetch {
  return async (url, request) => {
    const trustDomain = trustDomainOfIssuer(url);
    if (trustDomain === undefined) return fetch(url, request);
    if (jwtBundles === undefined)
      throw new ProxyError("upstream.unreachable", "the file has no spiffe block");
    return { status: 200, headers: {}, body: await jwtBundles.keySet(trustDomain) };
  };
}
