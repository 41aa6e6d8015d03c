/**
 * `listener`: which surfaces are open, and where.
 */
import { z } from "zod";
import { surfaces } from "./surfaces.ts";
import { duration, listenAddress, listOf, words } from "./value-schema.ts";
import { guarded } from "../yaml/empty-values.ts";

const envoyOnly = z
  .literal("", { error: 'belongs to the Envoy modes; mode "proxy-sidecar" does not have it' })
  .optional()
  .describe("Belongs to the Envoy modes of the Go program. Any value is refused here.");

function address(what: string, fallback: string) {
  return listenAddress().optional().describe(`Listen address of ${what}. Default "${fallback}".`);
}

/** The `listener` block. Addresses that are left out are filled by presets.ts from the roles. */
export const listenerSchema = z.strictObject({
  roles: listOf(z.enum(["reverse", "forward"]), 2).describe(
    "Surfaces to open: reverse (inbound to the agent) and forward (outbound from it). Default: both.",
  ),
  reverse_proxy_addr: address("the reverse proxy (role reverse)", surfaces.reverse.address),
  reverse_proxy_backend: z
    .string()
    .refine((text) => text === "" || isBackend(text), {
      error: 'must be an http or https URL of a host, such as "http://127.0.0.1:8000"',
    })
    .optional()
    .describe(
      "URL of the agent behind the reverse proxy; h2c:// for one that speaks HTTP/2 without TLS, such as gRPC. Required when the role reverse is active, unless inbound_interception is transparent.",
    ),
  forward_proxy_addr: address(
    "the explicit forward proxy (role forward)",
    surfaces.forward.address,
  ),
  forward_proxy_socks: z
    .boolean()
    .default(true)
    .describe(
      "Whether the forward proxy also serves clients that begin as SOCKS5 (CONNECT only), whose callers, policy and limits are those of a CONNECT. Default true.",
    ),
  socks_proxy_addr: listenAddress()
    .optional()
    .describe(
      `Listen address of a port for SOCKS5 alone, such as "${surfaces.socks.address}" (role forward). Not opened where it is left out.`,
    ),
  forward_proxy_tls: guarded(
    z
      .strictObject({
        cert_file: words().describe("Certificate chain of the forward proxy, PEM."),
        key_file: words().describe("Its private key, PEM."),
        client_ca_file: guarded(
          words()
            .optional()
            .describe(
              "Authorities that sign the certificates of clients, PEM. A client may then show one; callers says who it is.",
            ),
        ),
      })
      .optional()
      .describe(
        "TLS between agents and the forward proxy. Changed files are used for new connections without a restart.",
      ),
  ),
  transparent_proxy_addr: z
    .union([z.literal("off"), listenAddress()], {
      error: `must be a listen address such as "${surfaces.transparent.address}", or "off"`,
    })
    .optional()
    .describe(
      `Listen address of the listener for redirected connections (role forward, Linux), or "off". Default "${surfaces.transparent.address}", with egress_enforcement: none "off".`,
    ),
  transparent: z
    .strictObject({
      pin: z
        .enum(["strict", "off"])
        .default("strict")
        .describe(
          "Whether the address that the agent dialled must be one of the name that it asks for. The name is dialled either way. Default strict.",
        ),
      sniff_timeout: duration({ minMs: 100, maxMs: 60_000 })
        .default("5s")
        .describe(
          "Time for the first bytes; an agent that says nothing is judged by address. Default 5s.",
        ),
      opaque_ports: z
        .array(z.int().min(1).max(65_535))
        .max(1000)
        .default([21, 22, 25, 110, 143, 587, 3306, 5432])
        .describe(
          "Ports whose connections are judged by address at once, because servers speak first there. A list replaces the default.",
        ),
    })
    .prefault({})
    .describe("How redirected connections are read."),
  session_api_addr: address(
    "the session API. Moved to 127.0.0.1 while the TLS bridge is on, because it then shows decrypted traffic",
    surfaces.sessions.address,
  ),
  health_addr: address("/healthz and /readyz", surfaces.health.address),
  skip_hosts: listOf(
    z.string().superRefine((pattern, context) => {
      const message = skipHostProblem(pattern);
      if (message !== undefined) context.addIssue({ code: "custom", message });
    }),
  ).describe(
    "Host patterns whose outbound traffic is passed on without pipeline, buffering or session event. * is one label, ** is many. Default [].",
  ),
  ext_proc_addr: envoyOnly,
  ext_authz_addr: envoyOnly,
  inbound_interception: z
    .enum(["", "reverse-proxy", "transparent"], {
      error: "must be reverse-proxy or transparent",
    })
    .default("reverse-proxy")
    .transform((word) => word || "reverse-proxy")
    .describe(
      "How requests reach the agent (role reverse). reverse-proxy: through reverse_proxy_addr. transparent: the kernel redirects what others send to the agent's own ports (proxy-init, INBOUND_PROXY_PORT), and it is validated in the same way (Linux). Default reverse-proxy.",
    ),
  transparent_inbound_addr: address(
    "the listener for redirected inbound connections (inbound_interception: transparent)",
    surfaces.transparent_inbound.address,
  ),
  inbound_passthrough_ports: listOf(z.int().min(1).max(65_535), 1_000).describe(
    "Ports of the agent whose redirected connections are passed on unread and unvalidated, because what they speak is no HTTP. Default [].",
  ),
});

function isBackend(text: string): boolean {
  if (!URL.canParse(text)) return false;
  // Only http: has a host for the parser of URLs that is no special scheme.
  const url = new URL(text.replace(/^h2c:/i, "http:"));
  const { protocol, hostname, username, password, hash, search } = url;
  const isPlain = username === "" && password === "" && hash === "" && search === "";
  return (protocol === "http:" || protocol === "https:") && hostname !== "" && isPlain;
}

/** A pattern that would skip everything, or that can never match a host, is a mistake that opens the proxy. */
function skipHostProblem(pattern: string): string | undefined {
  if (pattern.trim() === "") return "must not be blank";
  if (/^[*.]+$/.test(pattern)) return "would skip every host";
  if (pattern.includes(":")) return "must be a host pattern without a port";
  return undefined;
}
