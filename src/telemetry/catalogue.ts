/** Every instrument of the proxy in one table: a new metric is a row here, and the place that counts. */
import {
  approvalEvents,
  directions,
  hops,
  outcomes,
  peerReasons,
  phases,
  refusals,
  results,
  socksOutcomes,
  spiffeItems,
  statusClasses,
  transports,
  tunnelEnds,
} from "./label-values.ts";
import { phaseBounds, requestBounds, tunnelBounds } from "./bounds.ts";

/** One of a set. */
export type Direction = (typeof directions)[number];
export type Transport = (typeof transports)[number];
export type FlowOutcome = (typeof outcomes)[number];
export type FlowPhase = (typeof phases)[number];
export type TunnelEnd = (typeof tunnelEnds)[number];
export type SocksOutcome = (typeof socksOutcomes)[number];
export type Refusal = (typeof refusals)[number];

/** A label: its name, and its values where these are a closed set; else they are words of the code. */
type Label = readonly [name: string, values?: readonly string[]];

/** One row. */
export interface InstrumentRow {
  readonly help: string;
  readonly labels: readonly Label[];
  /** A rate over a counter that appears with its first event misses that event: what is 0 from the start. */
  readonly zeros?: "all" | readonly (readonly string[])[];
  /** Of a histogram, in its unit. */
  readonly bounds?: readonly number[];
}

/** The values that a child is found by, given the labels of its row. */
export type ValuesOf<Labels extends readonly Label[]> = {
  readonly [At in keyof Labels]: Labels[At] extends readonly [
    string,
    readonly (infer Value extends string)[],
  ]
    ? Value
    : string;
};

/** The names lack `authbridge_`. */
export const counters = {
  flows_total: {
    help: "Flows that ended, by how they ended and by class of status.",
    labels: [
      ["direction", directions],
      ["transport", transports],
      ["outcome", outcomes],
      ["status", statusClasses],
    ],
  },
  decisions_total: {
    help: "What plugins decided; shadow is true where on_error: observe muted a refusal.",
    labels: [["direction", directions], ["plugin"], ["action"], ["shadow", ["true", "false"]]],
  },
  denials_total: {
    help: "What plugins refused, by why; shadow is true where on_error: observe muted it.",
    labels: [["direction", directions], ["plugin"], ["reason"], ["shadow", ["true", "false"]]],
  },
  bridge_handshakes_total: {
    help: "TLS handshakes of clients with the bridge, by outcome.",
    labels: [["outcome"]],
  },
  client_handshakes_total: {
    help: "TLS handshakes of clients with a listener; verified ones brought a certificate that its authority signed.",
    labels: [["outcome", ["verified", "unverified", "failed"]]],
  },
  socks_dialogues_total: {
    help: "Dialogues of SOCKS clients, by outcome: requested ones are flows, of which a caller may still be refused.",
    labels: [["outcome", socksOutcomes]],
    zeros: "all",
  },
  peers_refused_total: {
    help: "Peers of mutual TLS that were refused, by why: clients of the reverse proxy are inbound, servers outbound.",
    labels: [
      ["direction", directions],
      ["reason", peerReasons],
    ],
    zeros: "all",
  },
  peers_revoked_total: {
    help: "Connections of mutual TLS that were closed because their peer was no longer trusted.",
    labels: [["direction", directions]],
    zeros: "all",
  },
  secret_fetches_total: {
    help: "Fetches of secrets from their sources, by the source's name and by result.",
    labels: [["source"], ["result", results]],
  },
  tunnels_opened_total: { help: "Tunnels that were opened.", labels: [] },
  tunnels_closed_total: {
    help: "Tunnels that ended, by why.",
    labels: [["reason", tunnelEnds]],
    zeros: "all",
  },
  tunnel_bytes_total: {
    help: "Bytes through tunnels; up is from the client to the upstream.",
    labels: [["way", ["up", "down"]]],
    zeros: "all",
  },
  bytes_total: {
    help: "Body bytes of HTTP flows: received from the client, sent to the client.",
    labels: [
      ["direction", directions],
      ["way", ["received", "sent"]],
    ],
    zeros: "all",
  },
  refused_total: {
    help: "Clients refused before there was a flow, by why.",
    labels: [["reason", refusals]],
    zeros: "all",
  },
  evicted_total: {
    help: "Client connections that were closed to make room, the one idle for longest first, by what was full.",
    labels: [["reason"]],
  },
  addresses_refused_total: {
    help: "Addresses that the address guard refused to dial, by class of address.",
    labels: [["class"]],
  },
  threads_ended_total: {
    help: "Threads that ended although nobody had told them to, and were replaced.",
    labels: [],
  },
  thread_moments_lost_total: {
    help: "Events and decisions that a thread could not tell, because the thread in control did not take them.",
    labels: [],
  },
  reloads_total: {
    help: "Reloads of the file, by result.",
    labels: [["result", results]],
    zeros: "all",
  },
  upstream_refused_total: {
    help: "Connections to upstreams and look-ups of names for which there was no place, by the limit that was reached.",
    labels: [
      ["what", ["connection", "lookup"]],
      ["limit", ["all", "destination", "caller"]],
    ],
    zeros: [
      ["connection", "all"],
      ["lookup", "all"],
      ["connection", "caller"],
      ["lookup", "caller"],
      ["connection", "destination"],
    ],
  },
  upstream_proxy_probes_total: {
    help: "Readiness endpoints that were asked, by result: ok or the hop that failed.",
    labels: [["result"]],
    zeros: [["ok"]],
  },
  upstream_proxy_failures_total: {
    help: "Connections through an upstream proxy that failed, by hop.",
    labels: [["hop"]],
    zeros: hops.map((hop) => [hop]),
  },
  logouts_total: {
    help: "Logout tokens that came to /backchannel-logout, by what became of them, and logouts that replicas told of (heard).",
    labels: [["result", ["accepted", "refused", "unavailable", "heard"]]],
    zeros: "all",
  },
  logout_dropped_total: {
    help: "Remembered and exchanged tokens, introspections and handles that a logout dropped.",
    labels: [],
    zeros: "all",
  },
  approvals_total: {
    help: "Questions to persons (asked, allowed, denied, expired, withdrawn), and what became of the requests that depend on them.",
    labels: [["event", approvalEvents]],
    zeros: "all",
  },
  approval_webhook_total: {
    help: "Messages to approval.webhook, by result; failed ones were given up.",
    labels: [["result", results]],
    zeros: "all",
  },
  kill_switch_cut_total: {
    help: "Tunnels and exchanges that ran when an operator stopped them.",
    labels: [],
    zeros: "all",
  },
  plugin_events_total: {
    help: "What plugins count for themselves: cache hits, exchanges, key fetches.",
    labels: [["plugin"], ["event"]],
  },
  otlp_reports_total: {
    help: "Reports to the OpenTelemetry collector, by signal and result.",
    labels: [
      ["signal", ["traces", "metrics"]],
      ["result", results],
    ],
    zeros: "all",
  },
  spiffe_rotations_total: {
    help: "What came from the SPIFFE Workload API and is in use in place of something older.",
    labels: [["item", spiffeItems]],
    zeros: "all",
  },
  spiffe_errors_total: {
    help: "Failures to get something from the SPIFFE Workload API, to use it, or to mirror it to files.",
    labels: [["item", [...spiffeItems, "mirror"]]],
    zeros: "all",
  },
  session_ties_total: {
    help: "Questions to the state store whose conversation a message belongs to, and what was told of it (kept); away: it did not answer.",
    labels: [["result", ["found", "several", "none", "away", "kept"]]],
    zeros: "all",
  },
  state_operations_total: {
    help: "Calls of the state store (a file, Redis or Valkey), by result; failed ones were too slow or refused.",
    labels: [["result", results]],
    zeros: "all",
  },
  state_outages_total: {
    help: "Times at which the state store went away.",
    labels: [],
  },
  state_restored_total: {
    help: "Counters that the state store had lost, by a flush or a failover, and that were put back.",
    labels: [],
  },
  file_lines_total: {
    help: "Lines of the files of events and decisions, by whether they were written or lost.",
    labels: [
      ["file", ["events", "audit", "checkpoints"]],
      ["result", ["written", "lost"]],
    ],
  },
  file_outages_total: {
    help: "Times at which a file of events or decisions could no longer be written.",
    labels: [["file", ["events", "audit", "checkpoints"]]],
  },
} as const satisfies Readonly<Record<string, InstrumentRow>>;

/** The names lack `authbridge_`. */
export const histograms = {
  flow_duration_seconds: {
    help: "From the first byte of a flow to its end. Tunnels have their own histogram.",
    labels: [
      ["direction", directions],
      ["transport", transports],
    ],
    bounds: requestBounds,
  },
  phase_duration_seconds: {
    help: "Time that a flow spent in one of its phases.",
    labels: [
      ["direction", directions],
      ["phase", phases],
    ],
    bounds: phaseBounds,
  },
  tunnel_duration_seconds: {
    help: "From the opening of a tunnel to its end.",
    labels: [],
    bounds: tunnelBounds,
  },
} as const satisfies Readonly<Record<string, InstrumentRow & { bounds: readonly number[] }>>;

/** One reading for each source of secrets; secret-times.ts keeps them. The names lack `authbridge_`. */
export const secretGauges = {
  secret_fetched_timestamp_seconds: "When the secret of a source was last fetched: its age.",
  secret_expiry_timestamp_seconds: "When the secret of a source ends, where it does.",
} as const;

/** Of every Node process, under the names that dashboards for such processes expect; process-metrics.ts reads them. */
export const processGauges = {
  process_start_time_seconds: "Start of the process, in seconds since the epoch.",
  process_resident_memory_bytes: "Resident memory size.",
  process_open_fds: "Open file descriptors (Linux).",
  process_max_fds: "Limit of open file descriptors (Linux).",
  nodejs_heap_size_used_bytes: "Heap in use.",
  nodejs_external_memory_bytes: "Memory of buffers and of native objects.",
  nodejs_eventloop_lag_p50_seconds:
    "How late the event loop ran, over the time since the last scrape: p50.",
  nodejs_eventloop_lag_p99_seconds:
    "How late the event loop ran, over the time since the last scrape: p99.",
  nodejs_eventloop_lag_max_seconds:
    "How late the event loop ran, over the time since the last scrape: max.",
  nodejs_eventloop_utilization_ratio:
    "Share of the time since the last scrape in which the event loop was busy.",
} as const;

/** Always 1; what they tell is in their labels. The names lack `authbridge_`. */
export const infos = {
  build_info: { help: "Always 1; the labels say what runs.", labels: ["version", "node"] },
  egress_enforcement_info: {
    help: "Always 1; the label says how the agent is kept to the proxy.",
    labels: ["mode"],
  },
} as const;
