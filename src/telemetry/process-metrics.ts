/** What the process itself costs: CPU, memory, file descriptors and the event loop's lag. */
import { readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { monitorEventLoopDelay, performance } from "node:perf_hooks";
import type { processGauges } from "./catalogue.ts";
import { Counter, type Registry } from "./prom-client.ts";

const lagResolutionMs = 20;
const nanoseconds = 1e9;

type Readers = Readonly<
  Record<keyof typeof processGauges, () => number | undefined | Promise<number | undefined>>
>;

/**
 * Reads the gauges of the process, in the order in which the catalogue has them.
 *
 * prom-client's own set cannot be stopped: each call would leave an event-loop monitor and a GC observer behind.
 */
export class ProcessReaders implements Readers {
  readonly #delays = monitorEventLoopDelay({ resolution: lagResolutionMs });
  readonly #mostDescriptors = descriptorLimit();
  #utilization = performance.eventLoopUtilization();
  #lag: Readonly<Record<50 | 99 | 100, number>> = { 50: 0, 99: 0, 100: 0 };

  constructor() {
    this.#delays.enable();
  }

  readonly process_start_time_seconds = (): number => performance.timeOrigin / 1_000;
  readonly process_resident_memory_bytes = (): number => process.memoryUsage.rss();
  readonly process_max_fds = (): number | undefined => this.#mostDescriptors;
  readonly nodejs_heap_size_used_bytes = (): number => process.memoryUsage().heapUsed;
  readonly nodejs_external_memory_bytes = (): number => process.memoryUsage().external;
  readonly nodejs_eventloop_lag_p50_seconds = (): number => this.#readLag()[50];
  readonly nodejs_eventloop_lag_p99_seconds = (): number => this.#lag[99];
  readonly nodejs_eventloop_lag_max_seconds = (): number => this.#lag[100];

  readonly process_open_fds = async (): Promise<number | undefined> => {
    // The listing itself holds one descriptor. Another system has no such folder.
    const listed = await readdir("/proc/self/fd").catch(() => undefined);
    return listed === undefined ? undefined : Math.max(0, listed.length - 1);
  };

  readonly nodejs_eventloop_utilization_ratio = (): number => {
    const now = performance.eventLoopUtilization();
    const { utilization } = performance.eventLoopUtilization(now, this.#utilization);
    this.#utilization = now;
    return Number.isFinite(utilization) ? utilization : 0;
  };

  /** The one counter among them. */
  declareCpu(registry: Registry): void {
    const cpu: Counter = new Counter({
      name: "process_cpu_seconds_total",
      help: "User and system CPU time spent, in seconds.",
      registers: [registry],
      collect(): void {
        const { user, system } = process.cpuUsage();
        cpu.reset();
        cpu.inc((user + system) / 1e6);
      },
    });
  }

  close(): void {
    this.#delays.disable();
  }

  /** Reading forgets: the first of the three reads for all. */
  #readLag(): Readonly<Record<50 | 99 | 100, number>> {
    const idle = this.#delays.count === 0;
    // The monitor counts its own period as delay; an idle loop would show 20 ms of lag.
    const lag = (percentile: number): number => {
      const nanos = this.#delays.percentile(percentile);
      return idle || !Number.isFinite(nanos)
        ? 0
        : Math.max(0, nanos / nanoseconds - lagResolutionMs / 1_000);
    };
    this.#lag = { 50: lag(50), 99: lag(99), 100: lag(100) };
    this.#delays.reset();
    return this.#lag;
  }
}

function descriptorLimit(): number | undefined {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}
