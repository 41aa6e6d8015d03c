/** From a candidate chain to the accepted one: tried, written down, shown. */
import { messageOf } from "../../errors.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import type { Remark } from "../../yaml/schema-remarks.ts";
import type { NetworkBase } from "./network.ts";
import { failureText, probeChain } from "./probe.ts";
import { ChainStatus, type ChainStatusView } from "./status.ts";
import { TrustBundleFile } from "./trust-bundle-file.ts";
import type { ChainPlan } from "./plan.ts";

/** What trying needs of the process. */
export interface TrialServices {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly acceptance?: ChainAcceptance;
}

/** Asks the readiness endpoints; the problems are those of the keys that named the ones that failed. */
export async function tryChain(
  plan: ChainPlan,
  base: NetworkBase,
  { log, metrics, acceptance }: TrialServices,
): Promise<Remark[]> {
  acceptance?.trying();
  const failures = await probeChain(plan, base);
  const failed = new Set(failures.map(({ endpoint }) => endpoint));
  const { upstream_proxy_probes_total: probes } = metrics.counters;
  for (const { url } of plan.endpoints) if (!failed.has(url)) probes.of("ok").value += 1;
  for (const { endpoint, hop, message } of failures) {
    probes.of(hop).value += 1;
    log.error({ endpoint, hop, error: message }, "readiness endpoint cannot be reached");
  }
  if (failures.length > 0) acceptance?.refused(plan, failures);
  return failures.map((failure) => ({
    path: failure.path,
    message: `${failure.endpoint} ${failureText(failure)}`,
  }));
}

/** The chain's state over all generations of a process. */
export class ChainAcceptance {
  readonly #log: Logger;
  readonly #status: ChainStatus;
  readonly #bundle: TrustBundleFile;
  #probed = false;
  #isWaiting = false;

  constructor(log: Logger, metrics: Metrics) {
    this.#log = log;
    this.#status = new ChainStatus(metrics);
    this.#bundle = new TrustBundleFile(log);
  }

  /** True while a candidate is refused because of its endpoints, which may respond later. */
  get isWaiting(): boolean {
    return this.#isWaiting;
  }

  trying(): void {
    this.#probed = true;
    this.#isWaiting = false;
  }

  refused({ view }: ChainPlan, failures: Parameters<ChainStatus["refused"]>[1]): void {
    this.#isWaiting = true;
    this.#status.refused(view, failures);
  }

  /** The last step before a generation serves; resolves with what is wrong with the file that it writes. */
  async prepare(
    plan: ChainPlan | undefined,
    bridge: { readonly authorityPem: string } | undefined,
  ): Promise<Remark | undefined> {
    try {
      await this.#bundle.write(plan, bridge?.authorityPem);
    } catch (error) {
      const path = ["upstream_proxy", "trust_bundle_file"];
      return { path, message: `cannot be written: ${messageOf(error)}` };
    }
    return undefined;
  }

  /** A generation with this chain serves. */
  accepted(plan: ChainPlan | undefined): void {
    for (const warning of plan?.warnings ?? []) this.#log.warn({ key: "upstream_proxy" }, warning);
    this.#isWaiting = false;
    this.#bundle.accepted();
    this.#status.accepted(plan?.view, this.#probed && (plan?.endpoints.length ?? 0) > 0);
    this.#probed = false;
  }

  /** What was prepared last is not going to serve: another thread refuses it. */
  async dropped(): Promise<void> {
    try {
      await this.#bundle.dropped();
    } catch (error) {
      const key = "upstream_proxy.trust_bundle_file";
      this.#log.error({ key, error: messageOf(error) }, "the file of what serves is not written");
    }
  }

  rotated(caPem: string): void {
    this.#bundle.rotated(caPem);
  }

  view(): ChainStatusView | undefined {
    return this.#status.view();
  }
}
