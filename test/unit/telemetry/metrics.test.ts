import { readFileSync } from "node:fs";
import { afterEach, describe, expect, test } from "vitest";
import { HttpDurations } from "../../../src/telemetry/http-durations.ts";
import { Metrics } from "../../../src/telemetry/metrics.ts";

const open: Metrics[] = [];

function makeMetrics(): Metrics {
  const metrics = new Metrics({ version: "1.2.3", generation: () => 7 });
  open.push(metrics);
  return metrics;
}

afterEach(() => {
  for (const metrics of open.splice(0)) metrics.close();
});

async function sample(metrics: Metrics, start: string): Promise<number | undefined> {
  const line = (await metrics.render()).split("\n").find((one) => one.startsWith(`${start} `));
  return line === undefined ? undefined : Number(line.slice(start.length + 1));
}

describe("counters", () => {
  test("a finished flow counts under its class of status and in the histogram of its surface", async () => {
    const metrics = makeMetrics();
    metrics.flows.finished({
      direction: "outbound",
      transport: "http",
      outcome: "ok",
      status: 204,
      seconds: 0.003,
    });
    metrics.flows.finished({
      direction: "outbound",
      transport: "http",
      outcome: "ok",
      status: 200,
      seconds: 0.2,
    });
    const flows =
      'authbridge_flows_total{direction="outbound",transport="http",outcome="ok",status="2xx"}';
    const duration = "authbridge_flow_duration_seconds";
    const labels = 'direction="outbound",transport="http"';
    expect(await sample(metrics, flows)).toBe(2);
    expect(await sample(metrics, `${duration}_count{${labels}}`)).toBe(2);
    expect(await sample(metrics, `${duration}_sum{${labels}}`)).toBeCloseTo(0.203);
    expect(await sample(metrics, `${duration}_bucket{${labels},le="0.005"}`)).toBe(1);
    expect(await sample(metrics, `${duration}_bucket{${labels},le="0.25"}`)).toBe(2);
    expect(await sample(metrics, `${duration}_bucket{${labels},le="+Inf"}`)).toBe(2);
  });

  test.each([
    [0, "none"],
    [-1, "none"],
    [99, "none"],
    [101, "1xx"],
    [499, "4xx"],
    [599, "5xx"],
    [700, "none"],
    [Number.NaN, "none"],
  ])("status %s is of class %s", async (status, statusClass) => {
    const metrics = makeMetrics();
    metrics.flows.finished({
      direction: "inbound",
      transport: "http",
      outcome: "error",
      status,
      seconds: 0,
    });
    const labels = `direction="inbound",transport="http",outcome="error",status="${statusClass}"`;
    expect(await sample(metrics, `authbridge_flows_total{${labels}}`)).toBe(1);
  });

  test("a value on a bucket's bound belongs to that bucket", async () => {
    const metrics = makeMetrics();
    metrics.flows.phase("outbound", "connect", 0.001);
    const labels = 'direction="outbound",phase="connect"';
    const bucket = (le: string): string =>
      `authbridge_phase_duration_seconds_bucket{${labels},le="${le}"}`;
    expect(await sample(metrics, bucket("0.0005"))).toBe(0);
    expect(await sample(metrics, bucket("0.001"))).toBe(1);
  });

  test("a duration below zero does not make a sum fall", async () => {
    const metrics = makeMetrics();
    metrics.flows.phase("inbound", "pipeline", -5);
    const labels = 'direction="inbound",phase="pipeline"';
    expect(await sample(metrics, `authbridge_phase_duration_seconds_sum{${labels}}`)).toBe(0);
  });

  test("tunnels count their ends, bytes and time", async () => {
    const metrics = makeMetrics();
    metrics.tunnels.opened();
    metrics.tunnels.closed(10, 2_000, 3, "idle");
    expect(await sample(metrics, "authbridge_tunnels_opened_total")).toBe(1);
    expect(await sample(metrics, 'authbridge_tunnels_closed_total{reason="idle"}')).toBe(1);
    expect(await sample(metrics, 'authbridge_tunnel_bytes_total{way="up"}')).toBe(10);
    expect(await sample(metrics, 'authbridge_tunnel_bytes_total{way="down"}')).toBe(2_000);
    expect(await sample(metrics, "authbridge_tunnel_duration_seconds_count")).toBe(1);
  });

  test("reloads, refusals and refused addresses count, and zeros are there before the first event", async () => {
    const metrics = makeMetrics();
    expect(await sample(metrics, 'authbridge_reloads_total{result="failed"}')).toBe(0);
    expect(await sample(metrics, 'authbridge_refused_total{reason="malformed"}')).toBe(0);
    metrics.reload(false);
    metrics.refused("malformed");
    metrics.addressRefused("link-local");
    metrics.bytes("inbound", 5, 6);
    expect(await sample(metrics, 'authbridge_reloads_total{result="failed"}')).toBe(1);
    expect(await sample(metrics, 'authbridge_refused_total{reason="malformed"}')).toBe(1);
    expect(await sample(metrics, 'authbridge_addresses_refused_total{class="link-local"}')).toBe(1);
    expect(await sample(metrics, 'authbridge_bytes_total{direction="inbound",way="sent"}')).toBe(6);
  });

  test("plugin events beyond the bound of label values share one", async () => {
    const metrics = makeMetrics();
    for (let index = 0; index < 2_000; index += 1) metrics.pluginEvent("p", `event-${index}`);
    const text = await metrics.render();
    const lines = text.split("\n").filter((line) => line.startsWith("authbridge_plugin_events"));
    expect(lines.length).toBeLessThan(600);
    expect(
      await sample(metrics, 'authbridge_plugin_events_total{plugin="p",event="other"}'),
    ).toBeGreaterThan(1_000);
  });

  test("a muted refusal is told apart from a real one", async () => {
    const metrics = makeMetrics();
    const invocation = { plugin: "egress-policy", action: "deny", reason: "no_rule" } as const;
    metrics.invocation("outbound", invocation);
    metrics.invocation("outbound", { ...invocation, shadow: true });
    const labels = 'direction="outbound",plugin="egress-policy",action="deny"';
    expect(await sample(metrics, `authbridge_decisions_total{${labels},shadow="false"}`)).toBe(1);
    expect(await sample(metrics, `authbridge_decisions_total{${labels},shadow="true"}`)).toBe(1);
  });
});

describe("gauges", () => {
  test("are read at the scrape", async () => {
    const metrics = makeMetrics();
    let flows = 3;
    metrics.gauge("active_flows", () => flows);
    expect(await sample(metrics, "authbridge_active_flows")).toBe(3);
    flows = 4;
    expect(await sample(metrics, "authbridge_active_flows")).toBe(4);
    expect(await sample(metrics, "authbridge_config_generation")).toBe(7);
  });

  test("the process shows its version, CPU, memory, descriptors and event-loop lag", async () => {
    const metrics = makeMetrics();
    const build = `authbridge_build_info{version="1.2.3",node="${process.version}"}`;
    expect(await sample(metrics, build)).toBe(1);
    expect(await sample(metrics, "process_cpu_seconds_total")).toBeGreaterThan(0);
    expect(await sample(metrics, "process_resident_memory_bytes")).toBeGreaterThan(1e6);
    for (const word of ["p50", "p99", "max"])
      expect(await sample(metrics, `nodejs_eventloop_lag_${word}_seconds`)).toBeDefined();
    if (process.platform === "linux") {
      expect(await sample(metrics, "process_open_fds")).toBeGreaterThan(2);
    }
  });

  test("two Apps in one process do not share counters", async () => {
    const [one, other] = [makeMetrics(), makeMetrics()];
    one.tunnels.opened();
    expect(await sample(one, "authbridge_tunnels_opened_total")).toBe(1);
    expect(await sample(other, "authbridge_tunnels_opened_total")).toBe(0);
  });
});

test("docs/metrics.md and the registry name the same instruments with the same types and labels", async () => {
  const metrics = makeMetrics();
  for (const transport of ["http"] as const) {
    metrics.flows.finished({
      direction: "inbound",
      transport,
      outcome: "ok",
      status: 200,
      seconds: 1,
    });
    metrics.flows.phase("inbound", "connect", 1);
    metrics.invocation("inbound", { plugin: "p", action: "deny", reason: "r" });
    metrics.addressRefused("loopback");
    metrics.counters.bridge_handshakes_total.of("terminated").value += 1;
    metrics.pluginEvent("p", "e");
    metrics.counters.client_handshakes_total.of("verified").value += 1;
    metrics.counters.file_lines_total.of("events", "lost").value += 1;
    metrics.counters.file_outages_total.of("audit").value += 1;
    metrics.secrets.note("s", { kind: "fetched", expiresAt: 1 });
  }
  const text = await metrics.render();
  const registered = [...text.matchAll(/^# TYPE (\S+) (\S+)$/gm)].map(([, name = "", type]) => {
    const found = new RegExp(`^${name}(?:_count)?\\{([^}]*)\\}`, "m").exec(text)?.[1] ?? "";
    const labels = [...found.matchAll(/(\w+)="/g)].map((match) => match[1]);
    return `${name} ${type} ${labels.join(", ")}`.trim();
  });
  const documented = readFileSync(new URL("../../../docs/metrics.md", import.meta.url), "utf8");
  const rows = [...documented.matchAll(/^\| `(\w+)` +\| (\w+) +\| ([^|]*)\|/gm)].map(
    ([, name, type, labels = ""]) => `${name} ${type} ${labels.replaceAll("`", "").trim()}`.trim(),
  );
  expect(rows.toSorted()).toEqual(registered.toSorted());
});

test("durations by host have a bound, and what is more is counted together", async () => {
  const durations = new HttpDurations();
  const ask = (host: string): void =>
    durations.asked({ "http.request.method": "GET", "server.address": host, "server.port": 80 }, 1);
  for (let at = 0; at < 5_000; at += 1) ask(`host-${at}.test`);
  ask("host-0.test");
  const values = await durations.values();
  const counts = values
    .flatMap((metric) => metric.values as { metricName?: string; labels: object; value: number }[])
    .filter(({ metricName }) => metricName === "http.client.request.duration_count");
  expect(counts).toHaveLength(2_000);
  expect(counts.find(({ labels }) => "otel.metric.overflow" in labels)?.value).toBe(3_001);
  expect(counts[0]).toMatchObject({ labels: { "server.address": "host-0.test" }, value: 2 });
});

test("O2: the statistics have maps of handshakes where there were any", () => {
  const metrics = makeMetrics();
  expect(metrics.goStats()).not.toHaveProperty("tls_bridge");
  metrics.counters.bridge_handshakes_total.of("terminated").value += 1;
  metrics.counters.bridge_handshakes_total.of("terminated").value += 1;
  metrics.counters.client_handshakes_total.of("failed").value += 1;
  expect(metrics.goStats()).toMatchObject({ tls_bridge: { terminated: 2 }, mtls: { failed: 1 } });
});

test("the times of secrets come from threads, and end with their source", async () => {
  const thread = makeMetrics();
  const shown = makeMetrics();
  const expiry = async (): Promise<string | undefined> =>
    /^authbridge_secret_expiry_timestamp_seconds\{source="s"\} (\S+)$/m.exec(
      await shown.render(),
    )?.[1];
  thread.secrets.note("s", { kind: "fetched", expiresAt: 60_000 });
  thread.secrets.note("s", { kind: "failed" });
  shown.add(thread.changes());
  expect(await expiry()).toBe("60");
  expect(await shown.render()).toContain(
    'authbridge_secret_fetches_total{source="s",result="failed"} 1',
  );
  thread.secrets.note("s", { kind: "closed" });
  shown.add(thread.changes());
  expect(await expiry()).toBeUndefined();
});
