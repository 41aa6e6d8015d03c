/** What an authorization service is told of a message. */
import type { PluginDeps, RequestContext } from "../../pipeline/plugin.ts";
import type { JsonObject } from "../parsers/policy-input.ts";
import type { ExtAuthzConfig } from "./config.ts";
import type { StringMatcher } from "./string-matcher.ts";

/** One end of the request. */
export interface Peer {
  readonly address: string;
  readonly port: number;
  readonly principal: string | undefined;
  /** In PEM, URL-encoded. */
  readonly certificate: string | undefined;
  readonly labels: Readonly<Record<string, string>>;
}

/** A message in the words of Envoy's AttributeContext. */
export interface Attributes {
  readonly source: Peer;
  readonly destination: Peer;
  readonly id: string;
  /** Milliseconds since the epoch. */
  readonly startedAt: number;
  readonly method: string;
  /** Lower-case names, the pseudo-fields of HTTP/2 first. */
  readonly fields: readonly (readonly [name: string, value: string])[];
  readonly rawFields: boolean;
  /** With the query. */
  readonly path: string;
  readonly query: string;
  readonly host: string;
  readonly scheme: string;
  readonly protocol: string;
  /** Of the body; undefined where it is not known. */
  readonly size: number | undefined;
  /** Absent where bodies are not asked for. */
  readonly body: Buffer | undefined;
  readonly bodyAsBytes: boolean;
  readonly contextExtensions: Readonly<Record<string, string>>;
  readonly metadata: JsonObject;
  readonly sni: string | undefined;
}

/** What of the request's fields is told; undefined: all of them. */
export interface FieldChoice {
  readonly allowed: StringMatcher | undefined;
  readonly withheld: StringMatcher | undefined;
}

/** What is known besides the message itself. */
export interface AttributeParts {
  readonly config: ExtAuthzConfig;
  readonly deps: PluginDeps;
  readonly choice: FieldChoice;
  readonly body: Buffer | undefined;
  /** The body goes on beyond what is told. */
  readonly isPartial: boolean;
  /** What the parsers found. */
  readonly parsed: JsonObject;
}

/** Throws nothing; a message has all of it. */
export function attributesOf(context: RequestContext, parts: AttributeParts): Attributes {
  const { flow, path } = context;
  const { config, body } = parts;
  const { method, host, scheme } = targetOf(context);
  const question = path.indexOf("?");
  return {
    source: sourceOf(context, config),
    destination: destinationOf(context, parts.deps),
    id: flow.id,
    startedAt: flow.startedAt,
    method,
    fields: [
      [":authority", host],
      [":method", method],
      ...(path === "" ? [] : [[":path", path] as const]),
      ...(scheme === "" ? [] : [[":scheme", scheme] as const]),
      ...fieldsOf(context, parts),
    ],
    rawFields: config.encode_raw_headers,
    path,
    query: question === -1 ? "" : path.slice(question + 1),
    host,
    scheme,
    protocol: protocolOf(context),
    size: sizeOf(context),
    body,
    bodyAsBytes: config.with_request_body?.pack_as_bytes === true,
    contextExtensions: config.context_extensions,
    metadata: { direction: flow.direction, ...identityOf(context), ...parts.parsed },
    sni: config.include_tls_session ? sniOf(context) : undefined,
  };
}

function targetOf({ flow, stage, method, host, destination }: RequestContext) {
  const { direction, client } = flow;
  if (direction === "inbound")
    return { method, host, scheme: client.tls === undefined ? "http" : "https" };
  if (stage === "connect") return { method, host: destination.authority, scheme: "" };
  return { method, host: destination.hostHeader, scheme: destination.scheme };
}

/** The name of the agent or peer, else of the program. */
function sourceOf({ flow }: RequestContext, config: ExtAuthzConfig): Peer {
  const { address, port, caller, tls, process: peer } = flow.client;
  const executable = peer?.kind === "resolved" ? peer.executable : undefined;
  const { certificate } = tls ?? {};
  const isShown = config.include_peer_certificate && certificate !== undefined;
  return {
    address,
    port,
    principal: tls?.peer?.spiffeId ?? caller,
    certificate: isShown ? encodeURIComponent(certificate) : undefined,
    labels: executable === undefined ? {} : { executable },
  };
}

function destinationOf({ flow, destination }: RequestContext, deps: PluginDeps): Peer {
  const isOurs = flow.direction === "inbound";
  return {
    address: destination.host,
    port: destination.port,
    principal: isOurs ? deps.x509Svids?.current()?.spiffeId : undefined,
    certificate: undefined,
    labels: {},
  };
}

/** Of this hop only, or the client's proof to this proxy. */
const ofTheHop = new Set(["host", "proxy-authorization", "connection", "upgrade"]);

function* fieldsOf(
  context: RequestContext,
  { choice, body, isPartial }: AttributeParts,
): Generator<readonly [string, string]> {
  for (const [field, value] of context.headers) {
    const name = field.toLowerCase();
    if (ofTheHop.has(name)) continue;
    if (choice.allowed?.matches(name) === false || choice.withheld?.matches(name) === true)
      continue;
    // With it a client could say that more follows than does.
    if (name === "x-envoy-auth-partial-body") continue;
    yield [name, value];
  }
  if (context.upgrade !== undefined) {
    yield ["connection", "upgrade"];
    yield ["upgrade", context.upgrade];
  }
  if (body !== undefined) yield ["x-envoy-auth-partial-body", String(isPartial)];
}

function protocolOf({ httpVersion = "1.1" }: RequestContext): string {
  return httpVersion === "2.0" ? "HTTP/2" : `HTTP/${httpVersion}`;
}

function sizeOf({ headers, body, hasBody }: RequestContext): number | undefined {
  if (body !== undefined) return body.length;
  if (!hasBody) return 0;
  const length = headers.get("content-length");
  return length === undefined || !/^\d{1,15}$/.test(length) ? undefined : Number(length);
}

function identityOf({ identity }: RequestContext): JsonObject {
  if (identity === undefined) return {};
  const { subject, clientId = "", scopes, claims } = identity;
  return { identity: { subject, client_id: clientId, scopes, claims } };
}

/** Of the client's connection to this proxy, or of the one in a tunnel, whose name is that of the destination. */
function sniOf({ flow, stage, destination }: RequestContext): string | undefined {
  if (flow.transport === "bridge" && stage === "request")
    return destination.isAddress ? undefined : destination.host;
  return flow.client.tls?.serverName;
}
