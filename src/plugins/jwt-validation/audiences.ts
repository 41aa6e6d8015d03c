/** The audiences that an inbound token may be for. */
import { HostMatcher } from "../../pattern/host-pattern.ts";
import type { PluginDeps, RequestContext } from "../../pipeline/plugin.ts";
import { firstLabel } from "../config-values.ts";
import { defaultClientIdFile } from "../credentials/client-identity-config.ts";
import type { JwtValidationConfig } from "./config.ts";
import { credentialText, WatchedFile } from "../../files/watched-file.ts";

/** Audiences from the file, from a file that it names, or from the request's Host field. */
export class Audiences {
  readonly #isPerHost: boolean;
  readonly #hosts: HostMatcher | undefined;
  readonly #configured: readonly string[];
  readonly #file: WatchedFile<string> | undefined;
  #fromFile: string | undefined;
  #all: readonly string[];

  constructor(config: JwtValidationConfig, deps: PluginDeps) {
    this.#isPerHost = config.audience_mode === "per-host";
    const listed = [...config.allowed_audiences, config.audience ?? ""];
    this.#configured = listed.filter((audience) => audience !== "");
    this.#all = this.#configured;
    if (this.#isPerHost) {
      this.#hosts = perHost(config, deps);
      return;
    }
    const isEmpty = this.#configured.length === 0;
    const path = config.audience_file ?? (isEmpty ? defaultClientIdFile : undefined);
    if (path === undefined) return;
    this.#file = new WatchedFile({
      path,
      clock: deps.clock,
      parse: credentialText,
      onProblem: (problem) => deps.log.warn({ problem }, "audience file not usable"),
    });
  }

  /** True, or what is missing. */
  ready(): true | string {
    if (this.#isPerHost || this.#static().length > 0) return true;
    return `no audience yet (${this.#file?.problem ?? "none is configured"})`;
  }

  /** The audiences that do not depend on the request; undefined where they do. */
  get fixed(): readonly string[] | undefined {
    return this.#isPerHost ? undefined : this.#static();
  }

  /** What a token of this request may be for; undefined while nothing is known. */
  of(context: RequestContext): readonly string[] | undefined {
    if (!this.#isPerHost) {
      const audiences = this.#static();
      return audiences.length === 0 ? undefined : audiences;
    }
    const name = context.host.replace(/:\d*$/, "");
    if (this.#hosts?.matches(name) === false) return [];
    const label = firstLabel(context.host);
    return label === undefined ? [] : [label];
  }

  #static(): readonly string[] {
    const fromFile = this.#file?.current();
    if (fromFile !== this.#fromFile && fromFile !== undefined) {
      this.#fromFile = fromFile;
      this.#all = [...this.#configured, fromFile];
    }
    return this.#all;
  }
}

/** The client writes the Host field: without a list of hosts it chooses which tokens are accepted. */
function perHost(config: JwtValidationConfig, deps: PluginDeps): HostMatcher | undefined {
  if (
    config.audience !== undefined ||
    config.audience_file !== undefined ||
    config.allowed_audiences.length > 0
  ) {
    deps.log.warn(
      {},
      "audience, audience_file and allowed_audiences have no effect with audience_mode: per-host",
    );
  }
  if (config.allowed_hosts.length > 0) return new HostMatcher(config.allowed_hosts);
  deps.log.warn({}, "audience_mode: per-host believes the client's Host field; set allowed_hosts");
  return undefined;
}
