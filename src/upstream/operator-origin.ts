/** Where the operator's client may go: an http(s) origin, or a Unix socket that speaks HTTP. */
import { ProxyError } from "../errors.ts";
import { type Destination, parseAbsoluteTarget } from "../net/destination.ts";

/** One service that the operator's file names. */
export type OperatorOrigin =
  | { readonly kind: "network"; readonly name: string; readonly destination: Destination }
  | { readonly kind: "socket"; readonly name: string; readonly path: string };

/** A service and the path and query to ask it for. */
export interface OperatorTarget {
  readonly origin: OperatorOrigin;
  readonly path: string;
}

const unixScheme = "unix://";

/**
 * Parses `https://idp.example:8443/token`, or `unix:///run/opa.sock:/v1/data`: the socket's absolute path, a colon, the
 * path of the request. An origin is either without the path. Throws ProxyError `request.malformed`.
 */
export function parseOperatorTarget(url: string): OperatorTarget {
  if (!url.startsWith(unixScheme)) {
    const { destination, path } = parseAbsoluteTarget(url);
    return { origin: { kind: "network", name: destination.origin, destination }, path };
  }
  const rest = url.slice(unixScheme.length);
  const colon = rest.indexOf(":");
  const socket = colon === -1 ? rest : rest.slice(0, colon);
  const path = colon === -1 ? "/" : rest.slice(colon + 1);
  if (!/^\/[^\0]+$/.test(socket)) {
    throw new ProxyError(
      "request.malformed",
      "a unix:// address needs the absolute path of a socket",
    );
  }
  if (!/^\/[\x21-\x7e]*$/.test(path)) {
    throw new ProxyError("request.malformed", "a unix:// address has a path that is not one");
  }
  return { origin: { kind: "socket", name: `${unixScheme}${socket}`, path: socket }, path };
}
