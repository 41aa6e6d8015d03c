/** Keys of ext-authz that nothing reads in a configuration, with the reason. */
import type { Direction } from "../../pipeline/flow.ts";
import type { ConfigProblem } from "../../pipeline/plugin.ts";
import type { ExtAuthzConfig } from "./config.ts";

/** What only the messages of gRPC have room for. */
const toldOverGrpc = [
  ["encode_raw_headers"],
  ["include_peer_certificate"],
  ["include_tls_session"],
  ["include_executable"],
  ["include"],
  ["context_extensions"],
  ["with_request_body", "pack_as_bytes"],
];

/** Each of them, written or not. */
export function unusedKeysOf(config: ExtAuthzConfig, direction: Direction): ConfigProblem[] {
  const isInbound = direction === "inbound";
  const ofGrpc = config.http_service === undefined ? [] : toldOverGrpc;
  const ofOutbound = isInbound ? [["include_executable"], ["connect"]] : [];
  const host = isInbound ? -1 : config.allow_headers.indexOf("host");
  return [
    ...ofGrpc.map((path) => ({ path, message: "has no effect with http_service" })),
    ...ofOutbound.map((path) => ({ path, message: "has no effect in the inbound pipeline" })),
    ...(host === -1
      ? []
      : [{ path: ["allow_headers", host], message: "has no effect in the outbound pipeline" }]),
  ];
}
