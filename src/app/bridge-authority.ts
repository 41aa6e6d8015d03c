/** The authority that the bridge of a file signs with, as the commands that hand out trust need it. */
import { join, resolve } from "node:path";
import type { Config } from "../config/presets.ts";
import { CertificateAuthoritySource } from "../tlsbridge/authority-source.ts";
import type { CertificateAuthority } from "../tlsbridge/certificate-authority.ts";

/** An authority and where clients of this machine find its certificate. */
export interface BridgeAuthority {
  readonly authority: CertificateAuthority;
  readonly directory: string;
  readonly caFile: string;
}

/** Why a file has no authority that could be handed out, or undefined. */
export function authorityObjection(config: Config): string | undefined {
  const { mode, ca } = config.tls_bridge;
  if (mode !== "enabled")
    return "the TLS bridge is off: there is no CA to trust (tls_bridge.mode: enabled turns it on)";
  if (ca === "ephemeral")
    return "tls_bridge.ca is ephemeral: the CA lives in the running process only and nobody can trust it beforehand; use ca: file with generate_ca: true";
  return undefined;
}

/**
 * Opens, and with `generate_ca` makes, the set in `ca_dir` as the start does. Rejects with `config.invalid`.
 *
 * Only for files without {@link authorityObjection}.
 */
export async function openAuthority(config: Config): Promise<BridgeAuthority> {
  const { ca_dir: caDir, generate_ca: generate } = config.tls_bridge;
  const directory = resolve(caDir ?? "");
  const source = await CertificateAuthoritySource.open({ directory, generate });
  return { authority: source.current, directory, caFile: join(directory, "ca.crt") };
}
