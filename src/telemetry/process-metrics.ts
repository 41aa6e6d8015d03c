/** What the process itself costs: CPU, memory, file descriptors and the event loop's lag. */
import { readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { monitorEventLoopDelay, performance } from "node:perf_hooks";
import { Counter, Gauge, type Registry } from "./prom-client.ts";

const lagResolutionMs = 20;
const nanoseconds = 1e9;
/** By the names of prom-client's own set. */
const percentiles = [
  ["p50", 50],
  ["p99", 99],
  ["max", 100],
] as const;

/** The part of {@link ProcessMetrics} that must be stopped. */
export interface ProcessMetrics {
  close(): void;
}

/**
 * Registers the instruments under the names that dashboards for Node processes expect.
 *
 * prom-client's own set cannot be stopped: each call would leave an event-loop monitor and a GC observer behind.
 */
export function registerProcessMetrics(registry: Registry): ProcessMetrics {
  const registers = [registry];
  const gauge = (name: string, help: string, read: () => number): void => {
    const instrument: Gauge = new Gauge({
      name,
      help,
      registers,
      collect: () => instrument.set(read()),
    });
  };
  const cpu: Counter = new Counter({
    name: "process_cpu_seconds_total",
    help: "User and system CPU time spent, in seconds.",
    registers,
    collect(): void {
      const { user, system } = process.cpuUsage();
      cpu.reset();
      cpu.inc((user + system) / 1e6);
    },
  });
  gauge(
    "process_start_time_seconds",
    "Start of the process, in seconds since the epoch.",
    () => performance.timeOrigin / 1_000,
  );
  gauge("process_resident_memory_bytes", "Resident memory size.", () => process.memoryUsage.rss());
  gauge("nodejs_heap_size_used_bytes", "Heap in use.", () => process.memoryUsage().heapUsed);
  gauge("nodejs_external_memory_bytes", "Memory of buffers and of native objects.", () => {
    return process.memoryUsage().external;
  });
  registerDescriptors(registry);
  return registerEventLoop(registry, gauge);
}

function registerDescriptors(registry: Registry): void {
  const open: Gauge = new Gauge({
    name: "process_open_fds",
    help: "Open file descriptors (Linux).",
    registers: [registry],
    async collect(): Promise<void> {
      // The listing itself holds one descriptor. Another system has no such folder: no value then.
      const listed = await readdir("/proc/self/fd").catch(() => undefined);
      if (listed === undefined) open.reset();
      else open.set(Math.max(0, listed.length - 1));
    },
  });
  const limit = descriptorLimit();
  const most = new Gauge({
    name: "process_max_fds",
    help: "Limit of open file descriptors (Linux).",
    registers: [registry],
  });
  if (limit !== undefined) most.set(limit);
}

function descriptorLimit(): number | undefined {
  try {
    const soft = /^Max open files\s+(\d+)/m.exec(readFileSync("/proc/self/limits", "utf8"))?.[1];
    return soft === undefined ? undefined : Number(soft);
  } catch {
    return undefined;
  }
}

function registerEventLoop(
  registry: Registry,
  gauge: (name: string, help: string, read: () => number) => void,
): ProcessMetrics {
  const delays = monitorEventLoopDelay({ resolution: lagResolutionMs });
  delays.enable();
  // The monitor counts its own period as delay; an idle loop would show 20 ms of lag.
  const lag = (nanos: number): number =>
    Number.isFinite(nanos) ? Math.max(0, nanos / nanoseconds - lagResolutionMs / 1_000) : 0;
  const gauges = percentiles.map(([word, percentile]) => ({
    percentile,
    gauge: new Gauge({
      name: `nodejs_eventloop_lag_${word}_seconds`,
      help: `How late the event loop ran, over the time since the last scrape: ${word}.`,
      registers: [registry],
      // One of them reads for all: reading forgets.
      ...(word === "p50" ? { collect: () => read() } : {}),
    }),
  }));
  const read = (): void => {
    const idle = delays.count === 0;
    for (const { percentile, gauge: one } of gauges)
      one.set(idle ? 0 : lag(delays.percentile(percentile)));
    delays.reset();
  };
  let before = performance.eventLoopUtilization();
  gauge(
    "nodejs_eventloop_utilization_ratio",
    "Share of the time since the last scrape in which the event loop was busy.",
    () => {
      const now = performance.eventLoopUtilization();
      const { utilization } = performance.eventLoopUtilization(now, before);
      before = now;
      return Number.isFinite(utilization) ? utilization : 0;
    },
  );
  return {
    close(): void {
      delays.disable();
    },
  };
}
