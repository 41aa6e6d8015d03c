/** The TLS bridge of one generation, from the file's spelling. */
import { resolve, join } from "node:path";
import { maxBundleBytes } from "./trust/trusted-ca.ts";
import { readSmallFile } from "../files/watched-file.ts";
import type { Config } from "../config/presets.ts";
import { durationMs } from "../duration.ts";
import { messageOf } from "../errors.ts";
import { HostMatcher } from "../pattern/host-pattern.ts";
import { TlsBridge } from "../proxy/flow/tls-bridge.ts";
import type { Logger } from "../telemetry/log.ts";
import { type AuthoritySource, CertificateAuthoritySource } from "../tlsbridge/authority-source.ts";
import {
  type AuthorityPem,
  CertificateAuthority,
  generateAuthority,
} from "../tlsbridge/certificate-authority.ts";
import { Interception } from "../tlsbridge/interception.ts";
import { LeafMinter } from "../tlsbridge/leaf-minter.ts";
import { Terminator } from "../tlsbridge/terminator.ts";
import { derivedBytes } from "../secret.ts";
import { attempt, type BuildProblem } from "./build-problems.ts";
import type { CarriedState } from "./carried-state.ts";
import type { StateParts } from "./state-parts.ts";

/** What the bridge is built with. */
export interface BridgeServices {
  readonly log: Logger;
  readonly carried: CarriedState;
  /** Called when the authority of the bridge changes. */
  readonly acceptance?: { rotated(caPem: string): void };
  /** The authority of all threads in place of one made here. */
  readonly authority?: (() => Promise<AuthorityPem>) | undefined;
  /** What threads make the same ticket keys of. */
  readonly state?: Pick<StateParts, "seed"> | undefined;
}

/** Authority and leaves, kept over reloads while the keys that made them stay the same. */
interface Issuing {
  readonly source: AuthoritySource;
  readonly minter: LeafMinter;
  close(): Promise<void> | void;
}

/** Undefined where the bridge is off, or has problems. */
export async function buildBridge(
  config: Config,
  generation: number,
  services: BridgeServices,
  problems: BuildProblem[],
): Promise<TlsBridge | undefined> {
  const { tls_bridge: bridge, limits } = config;
  if (bridge.mode !== "enabled") return undefined;
  const passthroughHosts = attempt(
    ["tls_bridge", "passthrough_hosts"],
    () => new HostMatcher(bridge.passthrough_hosts),
    problems,
  );
  if (passthroughHosts === undefined) return undefined;
  let issuing: Issuing;
  try {
    issuing = await claimIssuing(config, generation, services);
  } catch (error) {
    problems.push({ path: ["tls_bridge", "ca_dir"], message: messageOf(error) });
    return undefined;
  }
  const interception = new Interception({
    ports: bridge.ports,
    passthroughHosts,
    onFailure: bridge.on_failure,
  });
  const terminator = new Terminator(issuing.minter, {
    handshakeTimeoutMs: durationMs(limits.connect_timeout),
  });
  return new TlsBridge(interception, terminator, issuing.source);
}

/** The key names every setting that the authority or a leaf depends on. */
async function claimIssuing(
  config: Config,
  generation: number,
  { log, carried, acceptance, authority, state }: BridgeServices,
): Promise<Issuing> {
  const {
    ca,
    ca_dir: caDir,
    generate_ca: generate,
    key_type: keyType,
    leaf_lifetime: lifetime,
    min_version: version,
  } = config.tls_bridge;
  const directory = ca === "ephemeral" ? "" : resolve(caDir ?? "");
  const key = `tls-bridge ${JSON.stringify([ca, directory, generate, keyType, lifetime, version])}`;
  const known = carried.find(generation, key) as Issuing | undefined;
  if (known !== undefined) return known;
  const source =
    ca === "ephemeral"
      ? await ephemeralSource(log, authority)
      : await fileSource(directory, generate, log, (pem) => acceptance?.rotated(pem));
  const minter = await LeafMinter.create(source, {
    keyType,
    lifetimeMs: durationMs(lifetime),
    minVersion: version === "1.3" ? "TLSv1.3" : "TLSv1.2",
    // A client resumes with whichever thread it meets.
    ...(state === undefined ? {} : { ticketKeys: derivedBytes(state.seed, key, 48) }),
  });
  return carried.claim<Issuing>(generation, key, () => ({
    source,
    minter,
    close: () => (source instanceof CertificateAuthoritySource ? source.close() : undefined),
  }));
}

async function ephemeralSource(
  log: Logger,
  authority: BridgeServices["authority"],
): Promise<AuthoritySource> {
  if (authority !== undefined)
    return { current: await CertificateAuthority.fromPem(await authority(), Date.now()) };
  warnOfEphemeral(log);
  return { current: await CertificateAuthority.ephemeral(Date.now()) };
}

/** An authority for all threads of a process, made when the first of them needs it. */
export function commonAuthority(log: Logger): () => Promise<AuthorityPem> {
  let made: Promise<AuthorityPem> | undefined;
  return () => {
    if (made === undefined) warnOfEphemeral(log);
    made ??= generateAuthority(Date.now());
    return made;
  };
}

function warnOfEphemeral(log: Logger): void {
  log.warn(
    { key: "tls_bridge.ca" },
    "the certificate authority is made anew at each start and lives in this process only: an agent in another pod cannot trust it beforehand, use ca: file there",
  );
}

async function fileSource(
  directory: string,
  generate: boolean,
  log: Logger,
  rotated: (caPem: string) => void,
): Promise<AuthoritySource> {
  const source = await CertificateAuthoritySource.open({
    directory,
    generate,
    onRotated: ({ fingerprint, notAfter, caPem }) => {
      log.info({ fingerprint, notAfter }, "the bridge signs with a new authority");
      rotated(caPem);
    },
    onProblem: (message) =>
      log.error(
        { directory, problem: message },
        "the changed authority is refused, the last good one stays",
      ),
  });
  source.start();
  return source;
}

/** The certificates of `tls_bridge.upstream_ca_bundle`. */
export function upstreamCertificates(config: Config, problems: BuildProblem[]): readonly string[] {
  const { upstream_ca_bundle: file } = config.tls_bridge;
  if (file === undefined) return [];
  const path = ["tls_bridge", "upstream_ca_bundle"];
  try {
    const pem = readSmallFile(file, maxBundleBytes);
    if (!pem.includes("-----BEGIN CERTIFICATE-----"))
      problems.push({ path, message: "holds no PEM certificate" });
    return [pem];
  } catch (error) {
    problems.push({ path, message: `cannot be read: ${messageOf(error)}` });
    return [];
  }
}

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
