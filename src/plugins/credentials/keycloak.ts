/** The endpoints of a Keycloak server. */

/** The address of a realm, by the address of the server and the realm's name. */
export function realmUrl(keycloak: string, realm: string): string {
  return `${keycloak.replace(/\/+$/, "")}/realms/${encodeURIComponent(realm)}`;
}
