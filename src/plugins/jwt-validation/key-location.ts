/** Where the keys of the issuer are, by the keys of the file. */
import type { KeyLocation } from "../../oauth/jwks.ts";
import { trustDomainOfIssuer } from "../../oauth/token-checks.ts";
import { realmUrl } from "../credentials/keycloak.ts";

interface Keys {
  readonly issuer: string;
  readonly jwks_url?: string | undefined;
  readonly keycloak_url?: string | undefined;
  readonly keycloak_realm?: string | undefined;
  readonly discovery: boolean;
}

/** Where the keys are: jwks_url, discovery, Keycloak's inner address, else Keycloak's layout below the issuer. */
export function keyLocationOf(config: Keys): KeyLocation {
  const { issuer, jwks_url: url, keycloak_url: keycloak, keycloak_realm: realm } = config;
  if (url !== undefined) return { kind: "keys", url };
  if (trustDomainOfIssuer(issuer) !== undefined) return { kind: "keys", url: issuer };
  const base = issuer.replace(/\/$/, "");
  if (config.discovery) {
    return { kind: "discovery", url: `${base}/.well-known/openid-configuration`, issuer };
  }
  if (keycloak !== undefined && realm !== undefined) {
    return { kind: "keys", url: `${realmUrl(keycloak, realm)}/protocol/openid-connect/certs` };
  }
  return { kind: "keys", url: `${base}/protocol/openid-connect/certs` };
}

/** Whether Keycloak's inner address says it. */
export const isKeycloak = (keys: Readonly<Record<string, unknown>>): boolean => {
  const { jwks_url: elsewhere, discovery, keycloak_url: url, keycloak_realm: realm } = keys;
  return elsewhere === undefined && discovery !== true && url !== undefined && realm !== undefined;
};
