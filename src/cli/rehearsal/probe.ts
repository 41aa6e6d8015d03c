/** A connection or request that nobody makes, as the chain would see it: for `explain` and `policy test`. */
import { messageOf } from "../../errors.ts";
import { HeaderList } from "../../http/headers.ts";
import { type Destination, parseAbsoluteTarget, parseAuthority } from "../../net/destination.ts";
import type { PeerProcess } from "../../net/kernel/peer-process.ts";
import { Cancellation } from "../../pipeline/cancellation.ts";
import { RequestContext, type Stage } from "../../pipeline/context.ts";
import { makeFlow } from "../../pipeline/flow.ts";
import type { ProbeSource } from "../arguments/probe-source.ts";

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
export function readProbe(source: ProbeSource): Probe | { readonly error: string } {
  const { connect, url, method, path, headers, body } = source;
  if ((connect === undefined) === (url === undefined))
    return { error: "name either connect (host:port) or url" };
  if (path !== undefined && !path.startsWith("/")) return { error: "path must start with '/'" };
  if (method !== undefined && !/^[\w!#$%&'*+.^`|~-]+$/.test(method))
    return { error: "method is no method name" };
  try {
    if (url !== undefined) {
      if (path !== undefined) return { error: "a url has a path of its own" };
      const { destination, path: target } = parseAbsoluteTarget(url);
      const request = { method: method ?? "GET", path: target };
      return { destination, isTunnel: destination.scheme === "https", request, source };
    }
    const destination = parseAuthority(connect ?? "", "tcp");
    const hasRequest = [method, path, headers, body].some((part) => part !== undefined);
    const request = hasRequest ? { method: method ?? "GET", path: path ?? "/" } : undefined;
    return {
      destination,
      isTunnel: true,
      source,
      ...(request === undefined ? {} : { request }),
    };
  } catch (error) {
    return { error: messageOf(error) };
  }
}

/** The message that a chain is asked about at one stage. */
export function probeContext(probe: Probe, stage: Stage): RequestContext {
  const { destination, isTunnel, request, source } = probe;
  const { headers = {}, body, caller } = source;
  const isConnect = stage === "connect";
  const place = isConnect
    ? destination.with({ scheme: "tcp" })
    : destination.with({ scheme: isTunnel ? "https" : "http" });
  const context = new RequestContext({
    flow: makeFlow({
      direction: "outbound",
      transport: isConnect ? "connect" : isTunnel ? "bridge" : "http",
      client: {
        address: "127.0.0.1",
        port: 0,
        process: peerOf(source),
        ...(caller === undefined ? {} : { caller }),
      },
      destination: place,
    }),
    stage,
    method: isConnect ? "CONNECT" : (request?.method ?? "GET"),
    path: isConnect ? "" : (request?.path ?? "/"),
    host: place.authority,
    headers: HeaderList.fromRecord(
      body === undefined ? headers : { "Content-Type": "application/json", ...headers },
    ),
    hasBody: !isConnect && body !== undefined,
    cancellation: new Cancellation(),
  });
  if (!isConnect && body !== undefined) context.content.load(Buffer.from(body));
  return context;
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
