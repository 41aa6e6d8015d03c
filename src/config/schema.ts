/**
 * The schema of the whole configuration file.
 *
 * Keys keep the spelling of the file (snake_case). Nothing here looks into the `config` of a plugin: the plugin owns it.
 */
import { z } from "zod";
import { approvalSchema } from "./approval-schema.ts";
import { callersSchema } from "./callers-schema.ts";
import { egressSchema } from "./egress-schema.ts";
import { limitsSchema } from "./limits-schema.ts";
import { mtlsSchema } from "./mtls-schema.ts";
import { listenerSchema } from "./listener-schema.ts";
import { pipelinesSchema } from "./pipeline-schema.ts";
import { auditSchema, sessionSchema } from "./session-schema.ts";
import { stateSchema } from "./state-schema.ts";
import { telemetrySchema } from "./telemetry-schema.ts";
import { tlsBridgeSchema } from "./tls-bridge-schema.ts";
import { upstreamProxySchema } from "./upstream-proxy-schema.ts";
import { count, duration, listenAddress, listOf, words } from "./value-schema.ts";
import { surfaces } from "./surfaces.ts";
import { guarded } from "../yaml/empty-values.ts";
import { readWhere } from "../yaml/idle-keys.ts";

/** The length of `sun_path` on Linux, less the zero at its end. */
const maxSocketPath = 107;

const spiffeSchema = z.strictObject({
  socket: z
    .string()
    .startsWith("unix://", { error: "must start with unix://", abort: true })
    .regex(/^unix:\/\/\//, {
      error: "must be unix:// and the absolute path of a socket",
      abort: true,
    })
    .refine((address) => Buffer.byteLength(address) <= maxSocketPath + "unix://".length, {
      error: `is longer than the ${maxSocketPath} bytes that the path of a socket can have`,
    })
    .default("unix:///spiffe-workload-api/spire-agent.sock")
    .describe(
      "Address of the SPIFFE Workload API, a Unix socket. It is dialled once something needs it: mtls, or an identity of type spiffe or tls-client-auth without files. Default unix:///spiffe-workload-api/spire-agent.sock.",
    ),
  x509_files: guarded(
    z
      .strictObject({
        cert_file: words().describe("The X.509-SVID and its intermediates, PEM."),
        key_file: words().describe("Its private key, PEM, not encrypted."),
        bundle_file: words().describe("The authorities of its trust domain, PEM."),
        federated_bundle_files: z
          .record(z.string(), words())
          .optional()
          .describe("The authorities of other trust domains, PEM, by the name of the domain."),
      })
      .optional()
      .describe(
        "The X.509-SVID and the bundles from files, where there is no Workload API. Changed files are used without a restart. They are not mirrored.",
      ),
  ),
  mirror_files: z
    .boolean()
    .default(true)
    .describe(
      "Write what comes from the Workload API to files for other containers, where anything in this file needs it: svid.pem, svid_key.pem, svid_bundle.pem and jwt_svid.token (of the first identity.jwt_audience), mode 0600. Default true.",
    ),
  mirror_dir: readWhere(
    words()
      .default("/opt")
      .describe("Directory of those files, which has to be there. Default /opt."),
    "with mirror_files: false",
    ({ mirror_files: mirrors }) => mirrors === true,
  ),
});

const reloadSchema = z.strictObject({
  enabled: z
    .boolean()
    .default(true)
    .describe("Watch the file and apply its changes. Default true."),
  debounce: readWhere(
    duration({ minMs: 0, maxMs: 60_000 })
      .default("250ms")
      .describe("Quiet time after a change before the file is read. Default 250ms."),
    "with enabled: false",
    ({ enabled }) => enabled === true,
  ),
  recheck_tunnels: z
    .boolean()
    .default(true)
    .describe(
      "Judge open tunnels and upgraded connections again after a reload and close those that are no longer allowed, by rule or by caller. Default true.",
    ),
});

const statsSchema = z.strictObject({
  address: listenAddress()
    .default(surfaces.stats.address)
    .describe(
      `Listen address of /metrics, /config, /stats and /reload/status. Default "${surfaces.stats.address}".`,
    ),
});

const logSchema = z.strictObject({
  level: z
    .enum(["debug", "info", "warn", "error"])
    .optional()
    .describe("Lowest level that is logged. Default: the variable LOG_LEVEL, else info."),
});

/** The file: every key, its type, its default and its description. */
export const configSchema = z.strictObject({
  mode: z
    .enum(["proxy-sidecar", ""], {
      error:
        'authbridge-proxy supports only mode "proxy-sidecar"; the other modes need another program',
    })
    .default("proxy-sidecar")
    .describe(
      'Mode of the Go program. Only "proxy-sidecar" (or nothing) is supported. Default "proxy-sidecar".',
    ),
  workers: z
    .union([count(1, 64), z.literal("auto")], {
      error: 'must be a whole number from 1 to 64, or "auto"',
    })
    .default(1)
    .describe(
      "Threads that serve traffic. With 1 the process has one thread for everything; with more, one further thread keeps the file, the operator's surfaces, sessions and state. auto: as many as the cgroup's quota of processor time gives cores. Default 1.",
    ),
  listener: listenerSchema.prefault({}).describe("Which surfaces are open, and where."),
  pipeline: pipelinesSchema.prefault({}).describe("The plugins of each direction, in order."),
  allow_weakened_auth: z
    .boolean()
    .default(false)
    .describe(
      "Let on_error: observe and off stand on plugins that authenticate, in both pipelines. The same key of an entry is for that entry alone, and the Go program does not take it there. Default false.",
    ),
  limits: limitsSchema.prefault({}).describe("Bounds of connections, bodies and waits."),
  egress_enforcement: z
    .enum(["enforce-redirect", "none"])
    .optional()
    .describe(
      "enforce-redirect: connections of the agent are redirected to the transparent listener (where written, /readyz wants it). none: HTTP_PROXY only asks the agent. Default enforce-redirect, or none where the transparent listener is off.",
    ),
  acknowledge_cooperative_mode: z
    .boolean()
    .default(false)
    .describe(
      "Silences the warning that egress_enforcement: none gives at every start. Default false.",
    ),
  egress: egressSchema
    .prefault({})
    .describe("Which addresses may be dialled, and how names become addresses."),
  callers: guarded(
    callersSchema
      .optional()
      .describe(
        "Who may use the forward proxy, where several agents share it. Without the block everybody who reaches it may.",
      ),
  ),
  upstream_proxy: upstreamProxySchema
    .optional()
    .describe("Going through the site's own proxies. Without the block nothing is chained."),
  session: sessionSchema.prefault({}).describe("The store of session events."),
  audit: auditSchema
    .optional()
    .describe("A log of decisions in which every line vouches for the one before it."),
  state: stateSchema
    .prefault({})
    .describe("Where budgets, pins and ties are kept, for one process or for all replicas."),
  approval: approvalSchema
    .prefault({})
    .describe("Asking persons about what rules with the action ask select."),
  kill_switch: z
    .strictObject({
      file: guarded(
        words()
          .optional()
          .describe(
            "File of what an operator has stopped, one a line (all, caller NAME, session ID, destination HOST[:PORT]; an empty file stops all). It is written by POST /v1/kill, read at the start and again when it changes, and lets a kill outlive the process. Default: none.",
          ),
      ),
    })
    .prefault({})
    .describe("Stopping everything, a caller, a session or a destination at once."),
  reload: reloadSchema.prefault({}).describe("How changes of the file are applied."),
  stats: statsSchema.prefault({}).describe("The operator's listener."),
  log: logSchema.prefault({}).describe("Logging."),
  telemetry: telemetrySchema.prefault({}).describe("Traces and metrics for others to collect."),
  tls_bridge: tlsBridgeSchema.prefault({}).describe("Opening TLS connections of the agent."),
  mtls: mtlsSchema
    .optional()
    .describe(
      "Mutual TLS between sidecars with SPIFFE certificates. The block turns it on; it needs spiffe.",
    ),
  spiffe: spiffeSchema
    .optional()
    .describe("The SPIFFE Workload API, from which this workload gets its identity."),
  plugin_modules: listOf(words(), 100).describe(
    "Paths of modules with further plugins. Default [].",
  ),
});

/** A checked file with defaults filled, before presets. Durations and sizes are still as written. */
export type FileConfig = z.output<typeof configSchema>;
