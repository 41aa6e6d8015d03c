/** A connection or request that nobody makes, as the pipeline would see it: for `explain` and `policy test`. */
import { messageOf } from "../../errors.ts";
import { HeaderList, isToken, stripHopByHop } from "../../http/headers.ts";
import {
  type Destination,
  parseAbsoluteTarget,
  parseAuthority,
  parseHostHeader,
} from "../../net/destination.ts";
import type { PeerProcess } from "../../net/kernel/peer-process.ts";
import { Cancellation } from "../../pipeline/cancellation.ts";
import { RequestContext, type Stage } from "../../pipeline/context.ts";
import { makeFlow } from "../../pipeline/flow.ts";
import { upgradeProtocol } from "../../proxy/exchange/request-head.ts";

/** What is asked about, as an author writes it. */
export interface ProbeSource {
  /** `host:port` of a CONNECT. */
  readonly connect?: string | undefined;
  /** An absolute URL instead: `http:` is a plain request, `https:` a CONNECT and the request in it. */
  readonly url?: string | undefined;
  readonly method?: string | undefined;
  readonly path?: string | undefined;
  /** Its fields in order; a name may come again. */
  readonly headers?: readonly (readonly [name: string, value: string])[] | undefined;
  /** Text of the body. */
  readonly body?: string | undefined;
  /** Path of the caller's executable; a caller without one is not identified. */
  readonly binary?: string | undefined;
  /** Executables of its ancestors, nearest first. */
  readonly ancestors?: readonly string[] | undefined;
  /** Authenticated name of the agent. */
  readonly caller?: string | undefined;
}

/** A probe that can be asked about. */
export interface Probe {
  readonly destination: Destination;
  /** A CONNECT comes first. */
  readonly isTunnel: boolean;
  /** Absent where only the connection is asked about. */
  readonly request?: { readonly method: string; readonly path: string };
  readonly source: ProbeSource;
}

/** Reads a probe, or says what is wrong with it. */
export function readProbe(source: ProbeSource): Probe | string {
  const { connect, url, method, path } = source;
  if ((connect === undefined) === (url === undefined))
    return "name either connect (host:port) or url";
  if (path !== undefined && !path.startsWith("/")) return "path must start with '/'";
  if (url !== undefined && path !== undefined) return "a url has a path of its own";
  if (method !== undefined && !isToken(method)) return "method is no method name";
  try {
    const probe = targetOf(source);
    const place = placeOf(probe);
    const host = fieldsOf(source).get("host");
    // Inside a CONNECT either may be spoken.
    const schemes = connect === undefined ? [place.scheme] : (["http", "https"] as const);
    if (host === undefined) return probe;
    if (schemes.some((scheme) => parseHostHeader(host, scheme).equals(place))) return probe;
    return `the Host field names ${host}, and the request is for ${place.authority}`;
  } catch (error) {
    return messageOf(error);
  }
}

function targetOf(source: ProbeSource): Probe {
  const { connect = "", url, method, path, headers, body } = source;
  if (url !== undefined) {
    const { destination, path: target } = parseAbsoluteTarget(url);
    const request = { method: method ?? "GET", path: target };
    return { destination, isTunnel: destination.scheme === "https", request, source };
  }
  const hasRequest = [method, path, headers, body].some((part) => part !== undefined);
  return {
    destination: parseAuthority(connect, "tcp"),
    isTunnel: true,
    source,
    ...(hasRequest ? { request: { method: method ?? "GET", path: path ?? "/" } } : {}),
  };
}

/** Where the request goes, which may be in a tunnel; in one that is read in the clear it is plain. */
export function placeOf({ destination, isTunnel }: Probe, isClear = false): Destination {
  return destination.with({ scheme: isTunnel && !isClear ? "https" : "http" });
}

/** The message that a pipeline is asked about at one stage. */
export function probeContext(probe: Probe, stage: Stage, isClear = false): RequestContext {
  const { request, source } = probe;
  const { body = "", caller } = source;
  const isConnect = stage === "connect";
  const place = isConnect ? probe.destination.with({ scheme: "tcp" }) : placeOf(probe, isClear);
  const headers = fieldsOf(source);
  headers.set("Host", place.hostHeader);
  return new RequestContext({
    flow: makeFlow({
      direction: "outbound",
      transport: isConnect ? "connect" : place.scheme === "https" ? "bridge" : "http",
      client: { address: "127.0.0.1", port: 0, process: peerOf(source), caller },
      destination: place,
    }),
    stage,
    method: isConnect ? "CONNECT" : (request?.method ?? "GET"),
    path: isConnect ? "" : (request?.path ?? "/"),
    host: place.authority,
    headers,
    hasBody: !isConnect && body !== "",
    cancellation: new Cancellation(),
    upgrade: isConnect ? undefined : upgradeOf(source),
  });
}

/** The protocol that the client wants to upgrade to, as the proxy's server reports it. */
function upgradeOf({ headers = [], body = "" }: ProbeSource): string | undefined {
  const written = new HeaderList(headers.flat());
  const options = written.get("connection")?.toLowerCase().split(",") ?? [];
  return upgradeProtocol({
    asksUpgrade: options.some((option) => option.trim() === "upgrade"),
    hasBody: body !== "",
    upgrade: written.get("upgrade"),
  });
}

/** The end-to-end fields; a body is JSON where no field says what it is. */
function fieldsOf({ headers = [], body }: ProbeSource): HeaderList {
  const written = new HeaderList();
  for (const [name, value] of headers) written.append(name, value);
  if (body !== undefined && !written.has("content-type"))
    written.append("Content-Type", "application/json");
  return new HeaderList(stripHopByHop(written.raw));
}

function peerOf({ binary, ancestors = [] }: ProbeSource): PeerProcess {
  const known = { pid: 0, ancestors };
  if (binary === undefined) {
    const message = "the question names no executable";
    return { ...known, executable: "", kind: "unresolved", reason: "no-owner", message };
  }
  return {
    ...known,
    executable: binary,
    kind: "resolved",
    sha256: "",
    commandLine: [],
    aliases: [],
  };
}
