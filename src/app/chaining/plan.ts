/** The chain of one generation, from the file's spelling and from what the file points to. */
import { createHash } from "node:crypto";
import { durationMs } from "../../duration.ts";
import type { KeyPath } from "../../yaml/problem.ts";
import type { Config } from "../../config/presets.ts";
import { messageOf } from "../../errors.ts";
import { parseAbsoluteTarget } from "../../net/destination.ts";
import { HostMatcher } from "../../pattern/host-pattern.ts";
import { NoProxy, splitNoProxy } from "../../net/no-proxy.ts";
import type { ParentProxy } from "../../upstream/parent/parent-proxy.ts";
import { type ProxyRoute, ProxyRoutes, type Way } from "../../upstream/proxy-routes.ts";
import { automaticNoProxy } from "./automatic-no-proxy.ts";
import type { Remark } from "../../yaml/schema-remarks.ts";
import { type OpenShiftProxy, openShiftProblem, readOpenShiftProxy } from "./openshift.ts";
import { makeParent, type UpstreamProxyConfig, type Variables } from "./parent.ts";
import { readTrustedCa, systemRoots } from "../trust/trusted-ca.ts";

/** One URL that has to respond, and the key that named it. */
export interface ReadinessEndpoint {
  readonly url: string;
  readonly path: KeyPath;
}

/** Everything that the block comes to. */
export interface ChainPlan {
  readonly routes: ProxyRoutes;
  readonly trustedCa: readonly string[];
  /** The roots in force: the system's, or none. */
  readonly roots: readonly string[];
  readonly endpoints: readonly ReadinessEndpoint[];
  readonly readinessTimeoutMs: number;
  readonly connectTimeoutMs: number;
  readonly tunnelTimeoutMs: number;
  readonly trustBundleFile: string | undefined;
  /** Lawful, and worth a line in the log. */
  readonly warnings: readonly string[];
  readonly view: ChainView;
}

/** The chain as operators are shown it; without credentials. */
export interface ChainView {
  readonly http_proxy: string;
  readonly https_proxy: string;
  readonly no_proxy: readonly string[];
  readonly routes: readonly { readonly host: string; readonly proxy: string }[];
  readonly trusted_ca: { readonly certificates: number; readonly sha256: string };
  readonly system_roots: boolean;
  readonly readiness_endpoints: readonly string[];
}

const root = "upstream_proxy";

/** Undefined where the file has no such block, or one with problems. */
export function planChain(
  config: Config,
  env: Variables,
  problems: Remark[],
): ChainPlan | undefined {
  const block = config.upstream_proxy;
  if (block === undefined) return undefined;
  const planner = new Planner(config, block, env);
  const plan = planner.plan();
  problems.push(...planner.problems);
  return plan;
}

/** Files whose change is a change of the configuration although its own text stays. */
export function chainFiles(config: Config): string[] {
  const block = config.upstream_proxy;
  if (block === undefined) return [];
  const parents = [block.http_proxy, block.https_proxy, ...block.routes.map(({ proxy }) => proxy)];
  const passwords = parents.flatMap((parent) =>
    typeof parent === "object" && parent.password_file !== undefined ? [parent.password_file] : [],
  );
  const files = [...passwords, block.trusted_ca, block.from_openshift?.path];
  return [...new Set(files.filter((file) => file !== undefined))];
}

/** What there is to remark on. */
interface Planned {
  readonly httpProxy: ParentProxy | undefined;
  readonly httpsProxy: ParentProxy | undefined;
  readonly hasStatus: boolean;
  readonly endpoints: readonly ReadinessEndpoint[];
}

class Planner {
  readonly #config: Config;
  readonly #block: UpstreamProxyConfig;
  readonly #env: Variables;
  readonly problems: Remark[] = [];
  readonly #warnings: string[] = [];

  constructor(config: Config, block: UpstreamProxyConfig, env: Variables) {
    this.#config = config;
    this.#block = block;
    this.#env = env;
  }

  plan(): ChainPlan | undefined {
    const block = this.#block;
    const cluster = this.#openshift();
    const httpProxy = this.#parent("http_proxy", cluster?.httpProxy, "http_proxy");
    const httpsProxy = this.#parent("https_proxy", cluster?.httpsProxy, "https_proxy");
    const noProxy = this.#noProxy(cluster);
    const routes = block.routes.flatMap((route, index) => this.#route(route, index));
    const trustedCa = this.#trustedCa();
    const endpoints = this.#endpoints(cluster);
    if (!block.system_roots && trustedCa.length === 0 && block.trusted_ca === undefined)
      this.#refuse(["system_roots"], "false needs trusted_ca: nothing would be trusted");
    this.#remarks({ httpProxy, httpsProxy, hasStatus: cluster?.hasStatus === true, endpoints });
    if (this.problems.length > 0) return undefined;
    const { connect_timeout: connectTimeout } = block;
    return {
      routes: new ProxyRoutes({ httpProxy, httpsProxy, routes, noProxy }),
      trustedCa,
      roots: block.system_roots ? systemRoots() : [],
      endpoints,
      readinessTimeoutMs: durationMs(block.readiness_timeout),
      connectTimeoutMs: durationMs(connectTimeout ?? this.#config.limits.connect_timeout),
      tunnelTimeoutMs: durationMs(block.tunnel_timeout),
      trustBundleFile: block.trust_bundle_file,
      warnings: this.#warnings,
      view: {
        http_proxy: httpProxy?.label ?? "",
        https_proxy: httpsProxy?.label ?? "",
        no_proxy: noProxy.entries,
        routes: block.routes.map(({ host }, index) => ({
          host,
          proxy: labelOf(routes[index]?.way),
        })),
        trusted_ca: { certificates: trustedCa.length, sha256: digestOf(trustedCa) },
        system_roots: block.system_roots,
        readiness_endpoints: endpoints.map(({ url }) => url),
      },
    };
  }

  #refuse(path: KeyPath, message: string): void {
    this.problems.push({ path: [root, ...path], message });
  }

  #openshift(): OpenShiftProxy | undefined {
    const { from_openshift: source, http_proxy: http, https_proxy: https } = this.#block;
    if (source === undefined) return undefined;
    if (http !== undefined || https !== undefined || this.#block.from_environment) {
      const message = "gives the parents: leave out http_proxy, https_proxy and from_environment";
      this.#refuse(["from_openshift"], message);
    }
    try {
      const found = readOpenShiftProxy(source.path);
      if (!found.hasStatus)
        this.#warnings.push("the Proxy resource has no status: everything is dialled directly");
      if (found.trustedCaName !== undefined && this.#block.trusted_ca === undefined)
        this.#warnings.push(
          `the Proxy resource names the ConfigMap ${found.trustedCaName} for CAs: mount it and set trusted_ca`,
        );
      return found;
    } catch (error) {
      this.#refuse(["from_openshift", "path"], openShiftProblem(error));
      return undefined;
    }
  }

  /** The file's own word, then the cluster's, then (only if asked for) the environment's. */
  #parent(
    key: "http_proxy" | "https_proxy",
    ofCluster: string | undefined,
    variable: string,
  ): ParentProxy | undefined {
    const block = this.#block;
    const own = block[key];
    const context = { env: this.#env, connectBy: block.connect_by, problems: this.problems };
    if (own !== undefined && own !== "") return makeParent(own, [root, key], context);
    const other = ofCluster ?? (block.from_environment ? this.#variable(variable) : undefined);
    if (other === undefined || other === "") return undefined;
    const path = ofCluster === undefined ? ["from_environment"] : ["from_openshift", "path"];
    return makeParent(other, [root, ...path], context);
  }

  /** Lower case first, as curl has it; ALL_PROXY stands for what is not set. */
  #variable(name: string): string | undefined {
    const env = this.#env;
    const found = env[name] ?? env[name.toUpperCase()];
    if (found !== undefined || name === "no_proxy") return found;
    return env["all_proxy"] ?? env["ALL_PROXY"];
  }

  #noProxy(cluster: OpenShiftProxy | undefined): NoProxy {
    const { no_proxy: written, from_environment: fromEnvironment } = this.#block;
    const sources: [KeyPath, string[]][] = [
      [["automatic_no_proxy"], automaticNoProxy(this.#block.automatic_no_proxy)],
      [["no_proxy"], splitNoProxy(written)],
      [["from_openshift", "path"], splitNoProxy(cluster?.noProxy ?? "")],
      [
        ["from_environment"],
        splitNoProxy(fromEnvironment ? (this.#variable("no_proxy") ?? "") : ""),
      ],
    ];
    for (const [path, entries] of sources) {
      for (const entry of entries) {
        try {
          NoProxy.parse([entry]);
        } catch (error) {
          this.#refuse(path, messageOf(error));
        }
      }
    }
    const all = sources.flatMap(([, entries]) => entries);
    return NoProxy.parse(this.problems.length === 0 ? all : []);
  }

  #route(route: UpstreamProxyConfig["routes"][number], index: number): ProxyRoute[] {
    const path: KeyPath = ["routes", index];
    const way = this.#wayOf(route, path);
    try {
      const hosts = new HostMatcher([route.host]);
      return way === undefined ? [] : [{ hosts, way }];
    } catch (error) {
      this.#refuse([...path, "host"], messageOf(error));
      return [];
    }
  }

  #wayOf(route: UpstreamProxyConfig["routes"][number], path: KeyPath): Way | undefined {
    const { proxy, direct } = route;
    if ((proxy === undefined) === (direct === undefined)) {
      this.#refuse(path, "needs one of proxy and direct");
      return undefined;
    }
    if (proxy === undefined || proxy === "direct") return "direct";
    const { connect_by: connectBy } = this.#block;
    const context = { env: this.#env, connectBy, problems: this.problems };
    return makeParent(proxy, [root, ...path, "proxy"], context);
  }

  #trustedCa(): readonly string[] {
    const { trusted_ca: path } = this.#block;
    if (path === undefined) return [];
    try {
      return readTrustedCa(path);
    } catch (error) {
      this.#refuse(["trusted_ca"], messageOf(error));
      return [];
    }
  }

  #endpoints(cluster: OpenShiftProxy | undefined): ReadinessEndpoint[] {
    const written = this.#block.readiness_endpoints.map((url, index) => ({
      url,
      path: [root, "readiness_endpoints", index] as KeyPath,
    }));
    const path: KeyPath = [root, "from_openshift", "path"];
    const all = [...written, ...(cluster?.readinessEndpoints ?? []).map((url) => ({ url, path }))];
    for (const { url, path: at } of all) {
      try {
        parseAbsoluteTarget(url);
      } catch (error) {
        this.problems.push({
          path: at,
          message: `is not an http or https URL: ${messageOf(error)}`,
        });
      }
    }
    return all;
  }

  #remarks({ httpProxy, httpsProxy, hasStatus, endpoints }: Planned): void {
    if (httpProxy !== undefined && httpsProxy === undefined)
      this.#warnings.push("https_proxy is not set: https and tunnels are dialled directly");
    if (httpProxy === undefined && httpsProxy !== undefined)
      this.#warnings.push("http_proxy is not set: plain HTTP is dialled directly");
    const isChained = httpProxy !== undefined || httpsProxy !== undefined || hasStatus;
    if (isChained && endpoints.length === 0)
      this.#warnings.push(
        "readiness_endpoints is empty: the chain is used without having been tried",
      );
  }
}

function labelOf(way: Way | undefined): string {
  return way === undefined || way === "direct" ? "direct" : way.label;
}

function digestOf(certificates: readonly string[]): string {
  if (certificates.length === 0) return "";
  return createHash("sha256").update(certificates.join("")).digest("hex");
}
