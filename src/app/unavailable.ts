/** What the file can ask for and this version cannot do: refused in words, never a silent no-op. */
import type { KeyPath } from "../config/problem.ts";
import type { Config } from "../config/presets.ts";
import { needsSpiffe } from "../config/relations.ts";

/** A key whose capability is not part of this version. */
export interface UnavailableKey {
  readonly path: KeyPath;
  readonly message: string;
}

/** Everything in the file that this version would have to ignore. */
export function unavailableKeys(config: Config): UnavailableKey[] {
  const found: UnavailableKey[] = [];
  const refuse = (path: KeyPath, what: string): void => {
    found.push({ path, message: `${what} is not available in this version` });
  };
  if (config.mtls !== undefined) refuse(["mtls"], "mutual TLS between sidecars");
  // An unused block is inert in the Go program as well (contract 1.1); one that something would use must not be ignored.
  else if (config.spiffe !== undefined && needsSpiffe(config)) {
    refuse(["spiffe"], "the Workload API (remove the block and set identity.jwt_svid_file)");
  }
  return found;
}
