/**
 * Listen addresses as Go writes them: ":8080", "127.0.0.1:0", "[::1]:0", "localhost:9090".
 */
import { isIPv4, isIPv6 } from "node:net";

/** A parsed listen address. No host means every interface; port 0 means any free port. */
export interface ListenAddress {
  readonly host: string | undefined;
  readonly port: number;
}

/** What a listen address looks like, for the schema of the file. */
export const listenAddressPattern = /^(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]*):\d{1,5}$/;

/** The parts of a listen address, or undefined for a text that is not one. */
export function parseListenAddress(text: string): ListenAddress | undefined {
  if (!listenAddressPattern.test(text)) return undefined;
  const colon = text.lastIndexOf(":");
  const port = Number(text.slice(colon + 1));
  if (port > 65_535) return undefined;
  const written = text.slice(0, colon);
  if (!written.startsWith("[")) {
    // A name of digits and dots that is no address is a mistyped address.
    if (/^[\d.]+$/.test(written) && !isIPv4(written)) return undefined;
    return { host: written === "" ? undefined : written, port };
  }
  const host = written.slice(1, -1);
  return isIPv6(host) ? { host, port } : undefined;
}

/** The address with its host replaced by 127.0.0.1 unless it is loopback already. A malformed text is left as it is. */
export function toLoopback(text: string): string {
  const address = parseListenAddress(text);
  if (address === undefined) return text;
  const { host, port } = address;
  const isLoopback =
    host === "localhost" ||
    host === "::1" ||
    (host !== undefined && isIPv4(host) && host.startsWith("127."));
  return isLoopback ? text : `127.0.0.1:${port}`;
}
