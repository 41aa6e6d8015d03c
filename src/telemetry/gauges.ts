/** The gauges, with what they say: their owners give each a reader. */

/** Read at the scrape from whoever `Metrics.gauge` was given; 0 without a reader. The names lack `authbridge_`. */
export const gauges = {
  active_flows: "Flows that are in progress.",
  active_tunnels: "Tunnels that are open.",
  bridge_ca_expiry_timestamp_seconds:
    "When the certificate authority of the bridge runs out; 0 without a bridge.",
  client_connections: "Connections that clients hold open.",
  config_generation:
    "Number of the configuration that new flows get; it grows with every applied reload.",
  config_last_reload_successful:
    "1 while the file, as it was last read, is the one that is being served; 0 while it is one that was refused.",
  ready: "1 while /readyz answers 200, else 0.",
  reload_last_success_timestamp_seconds:
    "When a configuration was last applied, the start included.",
  spiffe_svid_expiry_timestamp_seconds:
    "When the X.509-SVID that came last from the SPIFFE Workload API expires; 0 without one.",
  approvals_pending: "Questions to persons that are open.",
  approvals_held: "Requests that wait for the answer of a person.",
  kill_switch_active: "Things that an operator has stopped and not released.",
  state_up: "1 while every state store answers, else 0; always 1 in memory.",
  threads: "Threads that serve.",
  transparent_listener_up: "1 while the listener for redirected connections is open, else 0.",
  upstream_connections: "Connections to upstreams that are open.",
  upstream_proxy_accepted:
    "1 while the file's upstream_proxy serves, 0 while it is refused or not set.",
} as const;
