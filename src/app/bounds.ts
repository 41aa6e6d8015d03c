/** What strangers may cost the process in time and memory, and who makes room when there is none. */
import type { Config } from "../config/presets.ts";
import { sizeBytes } from "../config/size.ts";
import { durationMs } from "../duration.ts";
import { BodyBudget } from "../http/body.ts";
import { Backlogs } from "../net/backlogs.ts";
import { HeadWatch } from "../net/head-watch.ts";
import { StallWatch } from "../net/stall-watch.ts";
import type { Runtime } from "../proxy/flow/runtime.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { RareLog } from "../telemetry/rare-log.ts";
import type { Crowd } from "./listen-options.ts";

/** Where the bounds are counted. */
export interface BoundServices {
  readonly metrics: Metrics;
  readonly log: Logger;
  readonly crowd?: Crowd | undefined;
}

/** The bounds of one process, whatever its generation. */
export class ProcessBounds {
  readonly stalls: StallWatch;
  /** Bodies that plugins read. */
  readonly budget: BodyBudget;
  /** What slow readers leave lying, counted in the same budget. */
  readonly backlogs: Backlogs;
  /** Heads of requests that have not come to their end. */
  readonly heads: HeadWatch;

  constructor({ limits }: Config, { metrics, log, crowd }: BoundServices) {
    const shortest = Math.min(
      durationMs(limits.body_timeout),
      durationMs(limits.stream_idle_timeout),
    );
    this.stalls = new StallWatch(Math.max(20, Math.min(1_000, shortest / 4)));
    this.budget = new BodyBudget(sizeBytes(limits.max_buffered), crowd?.buffered);
    const { evictions } = metrics;
    const rare = new RareLog(log);
    this.backlogs = new Backlogs(this.budget, () => evictions.evicted("reader", rare));
    const headBytes = sizeBytes(limits.max_buffered_heads);
    this.heads = new HeadWatch(headBytes, () => evictions.evicted("head", rare));
  }

  /** What every flow is given of them. */
  shared(): Pick<ProcessBounds, "stalls" | "budget" | "backlogs" | "heads"> {
    const { stalls, budget, backlogs, heads } = this;
    return { stalls, budget, backlogs, heads };
  }

  close(): void {
    this.stalls.close();
    this.backlogs.close();
    this.heads.close();
  }
}

/** The limits that every flow of a generation reads. */
export function flowLimits({ limits }: Config): Runtime["limits"] {
  return {
    bodyTimeoutMs: durationMs(limits.body_timeout),
    streamIdleTimeoutMs: durationMs(limits.stream_idle_timeout),
    tunnelIdleTimeoutMs: durationMs(limits.tunnel_idle_timeout),
    firstBytesTimeoutMs: durationMs(limits.connect_timeout),
    maxBodyBytes: sizeBytes(limits.max_body),
    maxTunnels: limits.max_tunnels,
  };
}
