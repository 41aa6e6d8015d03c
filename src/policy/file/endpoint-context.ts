/** What surrounds the reading of one endpoint: the dialect, and what the rest of the proxy can do for it. */
import type { Dialect } from "../endpoint.ts";
import type { GlobTable } from "../../pattern/glob.ts";
import type { Node } from "./node.ts";
import type { EndpointSource } from "./schema.ts";

/** Features of the file format that depend on what stands around this mechanism. */
export interface Support {
  /** Somebody dials only addresses that are in the endpoint's `allowed_ips`. */
  readonly allowedIps: boolean;
  /** Somebody leaves a connection of a `tls: skip` endpoint unopened. */
  readonly tlsSkip: boolean;
}

/** What an endpoint is read with. */
export interface EndpointContext {
  readonly dialect: Dialect;
  readonly support: Support;
  readonly globs: GlobTable;
}

/** An endpoint as it is written. */
export type EndpointNode = Node<EndpointSource>;

/** Everything is supported: for tools that judge documents without a proxy around them. */
export const fullSupport: Support = Object.freeze({
  allowedIps: true,
  tlsSkip: true,
});
