/** The variables by which clients learn of a proxy and of the authority that it signs with. */
import { javaStorePassword } from "../app/trust/java-store.ts";
import { type ProxyAddress, proxyUrl } from "./proxy-address.ts";

/** Files as the client sees them. */
export interface TrustFiles {
  /** The bridge's CA alone, for clients that add it to their own roots. */
  readonly caFile: string;
  /** The CA with the system's roots, for clients whose roots it replaces. */
  readonly bundleFile: string;
  /** The same as a Java trust store. */
  readonly javaStoreFile: string;
}

/** One variable. */
export type Variable = readonly [name: string, value: string];

/**
 * Only loopback goes around the proxy: everything else is what the proxy is there for. IPv6 without brackets: httpx takes
 * a bracketed entry for a URL with a port and raises, and so does every client built on it.
 */
const unproxied = ["localhost", "127.0.0.1", "::1"] as const;

/** Java's spelling of the same hosts. */
const unproxiedJava = "localhost|127.*|[::1]";

/** Every variable, proxy first; without `trust` (the bridge is off) only those of the proxy. */
export function clientEnvironment(proxy: ProxyAddress, trust: TrustFiles | undefined): Variable[] {
  const java = javaOptions(proxy, trust);
  return [
    ...proxyVariables(proxy),
    ...(trust === undefined ? [] : trustVariables(trust)),
    ...(java === undefined ? [] : ([["JAVA_TOOL_OPTIONS", java]] as const)),
  ];
}

function proxyVariables(proxy: ProxyAddress): Variable[] {
  const url = proxyUrl(proxy);
  const noProxy = unproxied.join(",");
  return [
    // Most programs read one of the two spellings, and not all the same one.
    ["HTTP_PROXY", url],
    ["http_proxy", url],
    ["HTTPS_PROXY", url],
    ["https_proxy", url],
    // Other schemes; what the proxy cannot carry it refuses, which is better than a way around it.
    ["ALL_PROXY", url],
    ["all_proxy", url],
    ["NO_PROXY", noProxy],
    ["no_proxy", noProxy],
    ["NODE_USE_ENV_PROXY", "1"],
    ["npm_config_proxy", url],
    ["npm_config_https_proxy", url],
    ["npm_config_noproxy", noProxy],
    ["YARN_HTTP_PROXY", url],
    ["YARN_HTTPS_PROXY", url],
    ["CARGO_HTTP_PROXY", url],
    ["CLOUDSDK_PROXY_TYPE", "http"],
    ["CLOUDSDK_PROXY_ADDRESS", proxy.host],
    ["CLOUDSDK_PROXY_PORT", String(proxy.port)],
  ];
}

function trustVariables({ caFile, bundleFile }: TrustFiles): Variable[] {
  return [
    // These add to the client's roots.
    ["NODE_EXTRA_CA_CERTS", caFile],
    ["DENO_CERT", caFile],
    ["DENO_TLS_CA_STORE", "mozilla,system"],
    // These replace them.
    ["SSL_CERT_FILE", bundleFile],
    ["REQUESTS_CA_BUNDLE", bundleFile],
    ["CURL_CA_BUNDLE", bundleFile],
    ["GIT_SSL_CAINFO", bundleFile],
    ["PIP_CERT", bundleFile],
    ["HTTPLIB2_CA_CERTS", bundleFile],
    ["npm_config_cafile", bundleFile],
    ["YARN_HTTPS_CA_FILE_PATH", bundleFile],
    ["CARGO_HTTP_CAINFO", bundleFile],
    ["AWS_CA_BUNDLE", bundleFile],
    ["CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE", bundleFile],
    ["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", bundleFile],
    ["NIX_SSL_CERT_FILE", bundleFile],
  ];
}

/** Undefined when a path cannot be written so that the JVM reads it back. */
function javaOptions(proxy: ProxyAddress, trust: TrustFiles | undefined): string | undefined {
  const host = proxy.host.includes(":") ? `[${proxy.host}]` : proxy.host;
  const options = [
    `-Dhttp.proxyHost=${host}`,
    `-Dhttp.proxyPort=${proxy.port}`,
    `-Dhttps.proxyHost=${host}`,
    `-Dhttps.proxyPort=${proxy.port}`,
    `-Dhttp.nonProxyHosts=${unproxiedJava}`,
  ];
  if (trust !== undefined) {
    options.push(
      `-Djavax.net.ssl.trustStore=${trust.javaStoreFile}`,
      "-Djavax.net.ssl.trustStoreType=JKS",
      `-Djavax.net.ssl.trustStorePassword=${javaStorePassword}`,
    );
  }
  const quoted = options.map(quoteJava);
  return quoted.includes(undefined) ? undefined : quoted.join(" ");
}

/** The JVM splits the variable at white space and knows quotes, but no escapes. */
function quoteJava(option: string): string | undefined {
  if (!/[\s"']/.test(option)) return option;
  if (!option.includes('"')) return `"${option}"`;
  return option.includes("'") ? undefined : `'${option}'`;
}
