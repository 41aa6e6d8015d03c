/** A `fetch` that goes through a forward proxy, for clients that take one. */
import { fetch, ProxyAgent } from "undici";
import type { Closable } from "./owner.ts";

/** What clients call `fetch`. */
export type Fetch = typeof globalThis.fetch;

/** Absolute-form for http, or CONNECT with `proxyTunnel`; CONNECT for https, which trusts `ca`. */
export function throughProxy(
  proxy: string,
  ca?: string,
  proxyTunnel = ca !== undefined,
): Closable & { readonly fetch: Fetch } {
  const dispatcher = new ProxyAgent({
    uri: proxy,
    proxyTunnel,
    ...(ca === undefined ? {} : { requestTls: { ca } }),
  });
  const send: unknown = (url: string, init: object) => fetch(url, { ...init, dispatcher });
  return { fetch: send as Fetch, close: () => dispatcher.close() };
}
