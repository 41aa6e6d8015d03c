/** Where clients find the forward proxy: as the file has it, or as the operator says. */
import { parseListenAddress } from "../config/listen-address.ts";
import type { Config } from "../config/presets.ts";
import { surfaceAddresses, surfaceKey, type SurfaceName } from "../config/surfaces.ts";

/** Where the proxy is. */
export interface ProxyAddress {
  /** A name or address; IPv6 without brackets. */
  readonly host: string;
  readonly port: number;
  /** TLS between client and proxy (`listener.forward_proxy_tls`). */
  readonly isSecure?: boolean;
}

/** `http://host:port`, as proxy variables want it; `https://` where the proxy listens with TLS. */
export function proxyUrl({ host, port, isSecure }: ProxyAddress): string {
  return `${isSecure === true ? "https" : "http"}://${host.includes(":") ? `[${host}]` : host}:${port}`;
}

/** A surface of the file as a client of the same machine or pod reaches it, or why nobody can say. */
export function addressOfFile(
  config: Config,
  name: SurfaceName,
  { closed, otherwise }: { readonly closed: string; readonly otherwise: string },
): ProxyAddress | string {
  const found = surfaceAddresses(config).find((one) => one.name === name);
  const address = parseListenAddress(found?.address ?? "");
  if (address === undefined) return closed;
  const { host, port } = address;
  if (port === 0) return `${surfaceKey(name)} names no fixed port: ${otherwise}`;
  return { host: reachableHost(host), port };
}

/** The forward listener. */
export function proxyOfFile(config: Config): ProxyAddress | string {
  const found = addressOfFile(config, "forward", {
    closed:
      "the file opens no forward proxy (the role forward in listener.roles does); name one with --proxy",
    otherwise: "say where the proxy is with --proxy",
  });
  const isSecure = config.listener.forward_proxy_tls !== undefined;
  return typeof found === "string" || !isSecure ? found : { ...found, isSecure };
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
