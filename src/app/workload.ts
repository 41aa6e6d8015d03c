/** The identity of this workload from the block `spiffe`; its parts are loaded only where the file has one. */
import { resolve } from "node:path";
import type { Config } from "../config/presets.ts";
import { needsSpiffe, needsX509Svid, spiffeAudiences } from "../config/relations.ts";
import type { PluginDeps } from "../pipeline/plugin.ts";
import type { WorkloadIdentity } from "../spiffe/workload-identity.ts";
import type { AgentObserver } from "../spiffe/workload/agent.ts";
import type { JwtTokens } from "../spiffe/workload/jwt-tokens.ts";
import type { X509Stream } from "../spiffe/workload/x509-stream.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { CarriedState } from "./carried-state.ts";

/** Where the identity lives, and who hears of it. */
export interface WorkloadServices {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly carried: CarriedState;
}

/** A generation's view of what generations with the same socket share. */
export interface Workload extends WorkloadIdentity {
  readonly forPlugins: Pick<PluginDeps, "jwtSvids" | "x509Svids">;
  /** Gets what the file needs without waiting for somebody to ask. */
  begin(): void;
}

/** One connection to an agent and what came from it; it stays while a generation names its socket. */
interface Agent {
  readonly x509: X509Stream;
  readonly jwt: JwtTokens;
  close(): Promise<void>;
}

const clock = { now: () => Date.now() };

/** Undefined where the file has no `spiffe` block. Nothing is dialled. */
export async function claimWorkload(
  config: Config,
  generation: number,
  services: WorkloadServices,
): Promise<Workload | undefined> {
  const { spiffe } = config;
  if (spiffe === undefined) return undefined;
  const { x509, jwt } = await claimAgent(spiffe.socket, generation, services);
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
  return {
    x509,
    jwt,
    forPlugins: { jwtSvids: jwt, x509Svids: x509 },
    notReady: () => {
      const reasons = [
        ...(needsX509 ? [x509.notReady()] : []),
        ...audiences.map((audience) => jwt.notReady(audience)),
      ];
      return reasons.find((reason) => reason !== undefined);
    },
    svidExpiresAt: () => x509.expiresAt,
    begin: () => {
      if (needsX509) x509.begin();
      if (isNeeded && spiffe.mirror_files) mirror().begin();
    },
  };
}

async function claimAgent(
  address: string,
  generation: number,
  { log, metrics, carried }: WorkloadServices,
): Promise<Agent> {
  const { X509Stream } = await import("../spiffe/workload/x509-stream.ts");
  const { JwtTokens } = await import("../spiffe/workload/jwt-tokens.ts");
  const socket = address.slice("unix://".length);
  return carried.claim<Agent>(generation, `spiffe agent ${socket}`, () => {
    const options = { socket, clock, observer: observerOf(log, metrics) };
    const x509 = new X509Stream(options);
    const jwt = new JwtTokens(options);
    return {
      x509,
      jwt,
      close: async () => {
        jwt.close();
        await x509.close();
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
