/**
 * `upstream_proxy`: the site's own proxies, which our connections go through.
 */
import { z } from "zod";
import { addressBlock, duration, listOf, words } from "./value-schema.ts";
import { readWhere } from "../yaml/idle-keys.ts";
import { guarded } from "../yaml/empty-values.ts";

const connectBy = () =>
  z.enum(["address", "name"]).describe(
    // The default stands in the block, so that a parent can tell "not said" from "address".
    "What a parent is asked for: address, which was resolved and vetted here, or name, which the parent resolves.",
  );

const parentSchema = z.strictObject({
  url: words().describe("http://, https:// or socks5h:// with host and port."),
  username: z.string().optional().describe("User name for Basic authentication or SOCKS5."),
  password: z.string().optional().describe("Password, written out."),
  password_file: words()
    .optional()
    .describe("File that holds the password; a change of it is a change of the configuration."),
  password_env: words().optional().describe("Environment variable that holds the password."),
  connect_by: connectBy().optional().describe("connect_by for this parent alone."),
});

/** A URL, or a mapping with the URL and what belongs to it. */
const parent = () =>
  z.union([z.string(), parentSchema], {
    error: "must be a URL such as http://proxy.example:3128, or a mapping with url",
  });

const routeSchema = z.strictObject({
  host: words().describe("Host pattern of the destinations, as in listener.skip_hosts."),
  proxy: parent().optional().describe("The parent for them: a URL, a mapping, or the word direct."),
  direct: z.literal(true).optional().describe("They are dialled without a parent."),
});

const blocks = () =>
  z.union([addressBlock(), z.array(addressBlock()).max(64)], {
    error: 'must be a CIDR block such as "10.128.0.0/14", or a list of them',
  });

const automaticSchema = z.strictObject({
  cluster: guarded(
    z
      .boolean()
      .default(true)
      .describe("localhost, 127.0.0.1, .svc and .cluster.local. Default true."),
  ),
  service_network: blocks().optional().describe("Addresses of services, e.g. 172.30.0.0/16."),
  cluster_network: blocks().optional().describe("Addresses of pods, e.g. 10.128.0.0/14."),
  machine_network: blocks().optional().describe("Addresses of nodes, e.g. 10.0.0.0/16."),
  cluster_domain: words()
    .optional()
    .describe("Name and base domain of the cluster: adds api-int.<cluster_domain>."),
  api_server: words().optional().describe("Host of the API server; added as it is."),
  metadata: z
    .boolean()
    .default(false)
    .describe("169.254.169.254, where nodes must read their metadata. Default false."),
  region: words()
    .optional()
    .describe("Region of the cloud: adds .<region>.compute.internal (.ec2.internal in us-east-1)."),
  extra: listOf(words(), 1_000).describe("Further entries. Default []."),
});

const openshiftSchema = z.strictObject({
  path: words().describe("File with a config.openshift.io/v1 Proxy resource, YAML or JSON."),
});

/** OpenShift's status may have some, too. */
const hasEndpoints = (block: Readonly<Record<string, unknown>>): boolean =>
  block["from_openshift"] !== undefined ||
  (Array.isArray(block["readiness_endpoints"]) && block["readiness_endpoints"].length > 0);

/** The `upstream_proxy` block. */
export const upstreamProxySchema = z.strictObject({
  http_proxy: parent().optional().describe("Parent for plain HTTP: a URL or a mapping."),
  https_proxy: parent()
    .optional()
    .describe("Parent for https and for every tunnel: a URL or a mapping."),
  no_proxy: z
    .union([z.string(), z.array(z.string()).max(10_000)], {
      error: "must be a list, or a text with commas or spaces between its entries",
    })
    .default([])
    .describe(
      "Destinations that are dialled without a parent: *, host, .domain, *.domain, host:port, address, CIDR block. Default [].",
    ),
  connect_by: connectBy()
    .default("address")
    .describe(
      "What parents are asked for: address, which was resolved and vetted here, or name, which they resolve. Default address.",
    ),
  routes: listOf(routeSchema, 1_000).describe(
    "Ways of single destinations, asked before no_proxy; the first that matches wins. Default [].",
  ),
  trusted_ca: words()
    .optional()
    .describe(
      "PEM file, or directory of PEM files, with authorities of https parents, of parents that open TLS, and of origins.",
    ),
  system_roots: guarded(
    z
      .boolean()
      .default(true)
      .describe("Whether the roots of the system are trusted besides trusted_ca. Default true."),
  ),
  readiness_endpoints: guarded(
    listOf(words(), 32).describe(
      "URLs that must answer with a status below 400, by the way that this block describes, before it is accepted. Default [].",
    ),
  ),
  readiness_timeout: readWhere(
    duration({ maxMs: 300_000 })
      .default("10s")
      .describe("Time for one readiness endpoint. Default 10s."),
    "without readiness_endpoints",
    hasEndpoints,
  ),
  readiness_retry: readWhere(
    duration({ minMs: 0, maxMs: 24 * 3_600_000 })
      .default("30s")
      .describe(
        "When a file that was refused because of its endpoints is tried again; 0s means not before it changes. Default 30s.",
      ),
    "without readiness_endpoints",
    hasEndpoints,
  ),
  connect_timeout: duration()
    .optional()
    .describe(
      "Time to connect to a parent, and again for its TLS. Default limits.connect_timeout.",
    ),
  tunnel_timeout: duration()
    .default("30s")
    .describe("Time for a parent's answer to CONNECT or SOCKS. Default 30s."),
  automatic_no_proxy: automaticSchema
    .optional()
    .describe("Entries of no_proxy that a cluster needs."),
  from_environment: z
    .boolean()
    .default(false)
    .describe(
      "Take http_proxy, https_proxy and no_proxy from the environment where the block does not give them. Default false.",
    ),
  from_openshift: openshiftSchema
    .optional()
    .describe("Take them from the status of OpenShift's cluster-wide Proxy."),
  trust_bundle_file: words()
    .optional()
    .describe(
      "Where the roots, trusted_ca and the CA of the TLS bridge are written as one PEM file, for agents to mount.",
    ),
});
