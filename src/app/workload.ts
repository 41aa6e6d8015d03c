/** The identity of this workload from the block `spiffe`; its parts are loaded only where the file has one. */
import { resolve } from "node:path";
import type { Config } from "../config/presets.ts";
import { needsSpiffe, needsX509Svid, spiffeAudiences } from "../config/workload-needs.ts";
import type { PluginDeps } from "../pipeline/plugin.ts";
import type { WorkloadIdentity } from "../spiffe/workload-identity.ts";
import type { FileX509Source } from "../spiffe/file-source.ts";
import type { AgentObserver } from "../spiffe/workload/agent.ts";
import type { JwtBundles } from "../spiffe/workload/jwt-bundles.ts";
import type { JwtTokens } from "../spiffe/workload/jwt-tokens.ts";
import type { X509Stream } from "../spiffe/workload/x509-stream.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { CarriedState } from "./carried-state.ts";

/** Where the identity is stored, and who is notified of it. */
export interface WorkloadServices {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly carried: CarriedState;
}

/** A generation's view of what generations with the same socket share. */
export interface Workload extends WorkloadIdentity {
  readonly forPlugins: Pick<PluginDeps, "jwtSvids" | "jwtBundles" | "x509Svids">;
  /** Gets what the file needs without waiting for somebody to ask. */
  begin(): void;
}

/** One connection to an agent and what came from it; it stays while a generation names its socket. */
interface Agent {
  readonly x509: X509Stream;
  readonly jwt: JwtTokens;
  readonly jwtBundles: JwtBundles;
  close(): Promise<void>;
}

/** Quiet time after a change: the files of one SVID are rarely written in one step. */
const fileDebounceMs = 250;

const clock = { now: () => Date.now() };

/** Undefined where the file has no `spiffe` block. Nothing is dialled. */
export async function claimWorkload(
  config: Config,
  generation: number,
  services: WorkloadServices,
): Promise<Workload | undefined> {
  const { spiffe } = config;
  if (spiffe === undefined) return undefined;
  const { jwt, jwtBundles, ...agent } = await claimAgent(spiffe.socket, generation, services);
  const files = await claimFiles(spiffe.x509_files, generation, services);
  const x509 = files ?? agent.x509;
  const isNeeded = needsSpiffe(config);
  const audiences = spiffeAudiences(config);
  const needsX509 = isNeeded && (needsX509Svid(config) || spiffe.mirror_files);
  const { FileMirror } = await import("../spiffe/workload/file-mirror.ts");
  const mirror = (): InstanceType<typeof FileMirror> => {
    const directory = resolve(spiffe.mirror_dir);
    const [audience] = audiences;
    const key = `spiffe mirror ${JSON.stringify([spiffe.socket, directory, audience])}`;
    return services.carried.claim(generation, key, () => {
      const source = audience === undefined ? undefined : { source: jwt, audience };
      const onProblem = mirrorProblem(directory, services);
      return new FileMirror({ directory, x509, jwt: source, clock, onProblem });
    });
  };
  const x509NotReady = (): string | undefined => (needsX509 ? x509.notReady() : undefined);
  return {
    x509,
    jwt,
    forPlugins: { jwtSvids: jwt, jwtBundles, x509Svids: x509 },
    notReady: () => {
      const reasons = [x509NotReady(), ...audiences.map((audience) => jwt.notReady(audience))];
      return reasons.find((reason) => reason !== undefined);
    },
    x509NotReady,
    svidExpiresAt: () => x509.expiresAt,
    begin: () => {
      if (needsX509) x509.begin();
      if (isNeeded && spiffe.mirror_files && files === undefined) mirror().begin();
    },
  };
}

async function claimFiles(
  files: NonNullable<Config["spiffe"]>["x509_files"],
  generation: number,
  { log, metrics, carried }: WorkloadServices,
): Promise<FileX509Source | undefined> {
  if (files === undefined) return undefined;
  const { FileX509Source } = await import("../spiffe/file-source.ts");
  const key = `spiffe files ${JSON.stringify(files)}`;
  return carried.claim(generation, key, () => {
    const observer = observerOf(log, metrics);
    return new FileX509Source({
      files: {
        cert: files.cert_file,
        key: files.key_file,
        bundle: files.bundle_file,
        federated: new Map(Object.entries(files.federated_bundle_files ?? {})),
      },
      clock,
      debounceMs: fileDebounceMs,
      onRenewed: (item, facts) => observer.rotated(item, facts),
      onProblem: (problem) => observer.failed("x509_svid", problem, true),
    });
  });
}

async function claimAgent(
  address: string,
  generation: number,
  { log, metrics, carried }: WorkloadServices,
): Promise<Agent> {
  const { X509Stream } = await import("../spiffe/workload/x509-stream.ts");
  const { JwtBundles } = await import("../spiffe/workload/jwt-bundles.ts");
  const { JwtTokens } = await import("../spiffe/workload/jwt-tokens.ts");
  const socket = address.slice("unix://".length);
  return carried.claim<Agent>(generation, `spiffe agent ${socket}`, () => {
    const options = { socket, clock, observer: observerOf(log, metrics) };
    const x509 = new X509Stream(options);
    const jwt = new JwtTokens(options);
    const jwtBundles = new JwtBundles(options);
    return {
      x509,
      jwt,
      jwtBundles,
      close: async () => {
        jwt.close();
        await Promise.all([x509.close(), jwtBundles.close()]);
      },
    };
  });
}

function observerOf(log: Logger, metrics: Metrics): AgentObserver {
  return {
    rotated: (item, facts) => {
      metrics.counters.spiffe_rotations_total.of(item).value += 1;
      log.info({ item, ...facts }, "workload identity renewed");
    },
    failed: (item, problem, isNew) => {
      metrics.counters.spiffe_errors_total.of(item).value += 1;
      if (isNew) log.warn({ item, problem }, "workload identity not renewed");
    },
  };
}

/** A directory that cannot be written keeps nobody from using the identity. */
function mirrorProblem(
  directory: string,
  { log, metrics }: WorkloadServices,
): (problem: string) => void {
  let last: string | undefined;
  return (problem) => {
    metrics.counters.spiffe_errors_total.of("mirror").value += 1;
    if (problem === last) return;
    last = problem;
    const key = "spiffe.mirror_dir";
    log.warn({ key, directory, problem }, "workload identity not written to files");
  };
}
