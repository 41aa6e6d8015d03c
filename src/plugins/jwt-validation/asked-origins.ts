/** Whom the plugin asks: for keys, and about opaque tokens. */
import { trustDomainOfIssuer } from "../../oauth/token-checks.ts";
import { originOf } from "../config-values.ts";
import type { JwtValidationConfig } from "./config.ts";
import { introspectionUrlOf } from "./introspection-config.ts";
import { keyLocationOf } from "./key-location.ts";

/** The origins; keys of a trust domain come from the Workload API, and from none. */
export function askedOriginsOf(config: JwtValidationConfig): string[] {
  const { url } = keyLocationOf(config);
  const isAsked = trustDomainOfIssuer(url) === undefined;
  const urls = [isAsked ? url : undefined, introspectionUrlOf(config)];
  return urls.filter((one) => one !== undefined).map(originOf);
}
