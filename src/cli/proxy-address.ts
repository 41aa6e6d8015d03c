/** Where clients find the forward proxy: as the file has it, or as the operator says. */
import { parseListenAddress } from "../config/listen-address.ts";
import type { Config } from "../config/presets.ts";

/** Where the proxy is. */
export interface ProxyAddress {
  /** A name or address; IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
  /** TLS between client and proxy (`listener.forward_proxy_tls`). */
  readonly isSecure?: boolean;
}

/** `http://host:port`, as proxy variables want it; `https://` where the proxy speaks TLS. */
export function proxyUrl({ host, port, isSecure }: ProxyAddress): string {
  return `${isSecure === true ? "https" : "http"}://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/** The forward listener as a client of the same machine or pod reaches it, or why nobody can say. */
export function proxyOfFile(config: Config): ProxyAddress | string {
  const { forward_proxy_addr: text } = config.listener;
  if (text === undefined)
    return "the file opens no forward proxy (the role forward in listener.roles does); name one with --proxy";
  const address = parseListenAddress(text);
  if (address === undefined || address.port === 0)
    return "listener.forward_proxy_addr names no fixed port; say where the proxy is with --proxy";
  const isSecure = config.listener.forward_proxy_tls !== undefined;
  return {
    host: reachableHost(address.host),
    port: address.port,
    ...(isSecure ? { isSecure } : {}),
  };
}

/** Every interface is loopback too, and loopback is where a client of this machine is nearest. */
export function reachableHost(host: string | undefined): string {
  if (host === undefined || host === "0.0.0.0") return "127.0.0.1";
  return host === "::" ? "::1" : host;
}

/** The value of `--proxy`, or what it has to look like. */
export function parseProxyOption(text: string): ProxyAddress | string {
  const wanted = "--proxy must be a URL such as http://127.0.0.1:8081";
  if (!URL.canParse(text)) return wanted;
  const url = new URL(text);
  const isPlain =
    url.username === "" && url.password === "" && url.search === "" && url.hash === "";
  const isSecure = url.protocol === "https:";
  const isProxy = isSecure || url.protocol === "http:";
  if (!isProxy || url.hostname === "" || url.pathname !== "/" || !isPlain) return wanted;
  const port = url.port === "" ? (isSecure ? 443 : 80) : Number(url.port);
  if (port === 0) return wanted;
  return { host: url.hostname.replace(/^\[|\]$/g, ""), port, ...(isSecure ? { isSecure } : {}) };
}
