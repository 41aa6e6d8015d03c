/** What in the file needs the Workload API of SPIFFE. */
import { isMapping } from "../yaml/value-path.ts";
import type { Config } from "./presets.ts";

/** Whether anything in the file needs the Workload API; a `spiffe` block alone does not. */
export function needsSpiffe(config: Config): boolean {
  return needsX509Svid(config) || spiffeIdentities(config).length > 0;
}

/** Whether anything in the file shows the X.509-SVID of the Workload API to somebody. */
export function needsX509Svid(config: Config): boolean {
  return (
    config.mtls !== undefined ||
    config.tls_bridge.client_certificates.some(({ svid }) => svid) ||
    identitiesOf(config, "tls-client-auth").some((one) => !one["client_certificate_file"])
  );
}

/** The audiences that plugins need JWT-SVIDs of the Workload API for, each once, in the order of the file. */
export function spiffeAudiences(config: Config): string[] {
  const audiences = spiffeIdentities(config).map(({ jwt_audience: audience }) => audience);
  return [
    ...new Set(audiences.filter((one): one is string => typeof one === "string" && one !== "")),
  ];
}

/** Every `identity` of a plugin that is one of SPIFFE and does not come from a file. */
function spiffeIdentities(config: Config): Readonly<Record<string, unknown>>[] {
  return identitiesOf(config, "spiffe").filter((identity) => !identity["jwt_svid_file"]);
}

/** Every `identity` of this type, of a plugin or of a block of its settings, such as introspection or a source of a secret. */
function identitiesOf({ pipeline }: Config, type: string): Readonly<Record<string, unknown>>[] {
  return [...pipeline.inbound.plugins, ...pipeline.outbound.plugins]
    .filter((entry) => entry.on_error !== "off")
    .flatMap(({ config }) => blocksOf(config))
    .map((block) => block["identity"])
    .filter(isMapping)
    .filter((identity) => identity["type"] === type);
}

function blocksOf(value: unknown): Readonly<Record<string, unknown>>[] {
  if (Array.isArray(value)) return value.flatMap(blocksOf);
  return isMapping(value) ? [value, ...Object.values(value).flatMap(blocksOf)] : [];
}
