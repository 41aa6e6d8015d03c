/** `explain`: what would become of a connection or request, who decides it, and what would be attached. */
import type { LoadedConfig } from "../../config/load.ts";
import { formatProblem } from "../../yaml/problem.ts";
import { messageOf, ProxyError } from "../../errors.ts";
import { HostMatcher } from "../../pattern/host-pattern.ts";
import { Cancellation } from "../../pipeline/cancellation.ts";
import type { OperatorFetch } from "../../pipeline/plugin.ts";
import { createLogger } from "../../telemetry/log.ts";
import { Metrics } from "../../telemetry/metrics.ts";
import { Interception } from "../../tlsbridge/interception.ts";
import type { JudgedAddress } from "../../upstream/address-guard.ts";
import { OwnListeners } from "../../upstream/own-listeners.ts";
import { buildRuntime, type FailedBuild } from "../../app/build.ts";
import { buildProblems } from "../../app/build-problems.ts";
import { CarriedState } from "../../app/carried-state.ts";
import { commandFile, type FileCommand, refuseCommand } from "../config-file.ts";
import { definitionsFor } from "../../app/definitions.ts";
import { addressGuardOf } from "../../app/egress/guard.ts";
import { explanationText } from "./report.ts";
import { surfaceAddresses } from "../../config/surfaces.ts";
import { bindAddressOf } from "../../app/listen-options.ts";
import { printableJson } from "../event-line.ts";
import { type Probe, type ProbeSource, readProbe } from "./probe.ts";
import {
  type ExplainedProbe,
  judgeProbe,
  type ProbeVerdict,
  type VerdictOptions,
} from "./verdict.ts";
import { packageVersion } from "../version.ts";

interface ExplainCommand extends FileCommand, ProbeSource {
  readonly json: boolean;
  /** Leaves DNS alone. */
  readonly isOffline: boolean;
}

/** Prints the explanation; 0: it would pass, 1: it would be refused, 2: the file or the question is wrong. */
export async function explain(command: ExplainCommand): Promise<number> {
  try {
    const loaded = await commandFile(command, { allowUnset: true });
    if (loaded === undefined) return 2;
    const probe = readProbe(command);
    if (typeof probe === "string") return refuseCommand(probe);
    const built = await withChain(loaded, (chain) => explainProbe(probe, chain, command));
    if (built.kind === "failed") {
      for (const problem of buildProblems(loaded, built.problems))
        process.stderr.write(`${formatProblem(problem)}\n`);
      return 2;
    }
    const explained = built.value;
    const text = command.json
      ? `${printableJson(forJson(explained), 2)}\n`
      : explanationText(explained);
    process.stdout.write(text);
    return explained.verdict === "deny" ? 1 : 0;
  } catch (error) {
    return refuseCommand(error);
  }
}

/** The outbound side of a file, built and not started. */
export interface ExplainedChain {
  readonly loaded: LoadedConfig;
  readonly metrics: Metrics;
  readonly surroundings: VerdictOptions;
}

/** A rehearsal asks no service. */
const reachNobody: OperatorFetch = () =>
  Promise.reject(new ProxyError("upstream.refused", "a rehearsal asks no service"));

/** Builds the file without starting it. */
export async function withChain<T>(
  loaded: LoadedConfig,
  use: (chain: ExplainedChain) => Promise<T>,
): Promise<{ readonly kind: "used"; readonly value: T } | FailedBuild> {
  const metrics = new Metrics({ version: packageVersion(), generation: () => 0 });
  const { tls_bridge: bridge } = loaded.config;
  // The bridge is left out of the building, as it would make or read keys; which connections it opens is in the file.
  const config = { ...loaded.config, tls_bridge: { ...bridge, mode: "disabled" as const } };
  try {
    const built = await buildRuntime(
      config,
      0,
      {
        log: createLogger("silent"),
        metrics,
        ownListeners: new OwnListeners(),
        env: process.env,
        carried: new CarriedState(),
        definitions: await definitionsFor(loaded),
        fetch: reachNobody,
      },
      { start: false },
    );
    if (built.kind === "failed") return built;
    const { runtime } = built;
    const interception =
      bridge.mode === "enabled"
        ? new Interception({
            ports: bridge.ports,
            passthroughHosts: new HostMatcher(bridge.passthrough_hosts),
          })
        : undefined;
    try {
      const { outbound: pipeline, skipHosts, limits } = runtime;
      const { maxBodyBytes } = limits;
      const surroundings = { pipeline, skipHosts, bridge: interception, maxBodyBytes };
      return { kind: "used", value: await use({ loaded, metrics, surroundings }) };
    } finally {
      await runtime.close();
    }
  } finally {
    metrics.close();
  }
}

async function explainProbe(
  probe: Probe,
  chain: ExplainedChain,
  { isOffline }: ExplainCommand,
): Promise<ExplainedProbe> {
  const verdict = await judgeProbe(probe, chain.surroundings);
  // A name that policy refuses is not looked up: asking DNS would tell somebody of it.
  return vetted(probe, verdict, chain, !isOffline && verdict.verdict !== "deny");
}

/** Adds what the address guard says. */
async function vetted(
  probe: Probe,
  verdict: ProbeVerdict,
  { loaded, metrics }: ExplainedChain,
  resolve: boolean,
): Promise<ExplainedProbe> {
  if (!resolve) return { ...verdict, addresses: [] };
  const guard = addressGuardOf(loaded.config, { ownListeners: listenersOf(loaded), metrics });
  const refused = { ...verdict, verdict: "deny", plugin: "address-guard" } as const;
  let addresses: readonly JudgedAddress[];
  try {
    addresses = await guard.judge(probe.destination, new Cancellation(), verdict.addressLimits);
  } catch (error) {
    const { status, code } =
      error instanceof ProxyError ? error : { status: 502, code: "internal.fault" };
    return { ...refused, reason: messageOf(error), code, status, addresses: [] };
  }
  if (addresses.some(({ objection }) => objection === undefined)) return { ...verdict, addresses };
  const [first] = addresses;
  const reason = `${first?.address ?? probe.destination.host} is a forbidden address, class ${first?.objection ?? "unresolvable"}: ${first?.remedy ?? "no answer"}`;
  const code = "upstream.address-forbidden";
  return { ...refused, reason, code, status: 403, addresses };
}

/** The addresses that the file names; those with port 0 are not known before the start. */
function listenersOf({ config }: LoadedConfig): OwnListeners {
  const own = new OwnListeners();
  for (const { address } of surfaceAddresses(config)) {
    const { host, port } = bindAddressOf(address);
    if (port > 0) own.add(host, port);
  }
  return own;
}

function forJson({ addressLimits, ...explained }: ExplainedProbe): unknown {
  return { ...explained, allowedIps: addressLimits.map(String) };
}
