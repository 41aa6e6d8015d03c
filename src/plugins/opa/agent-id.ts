/** Whose agent this proxy stands beside, as policies and bundle servers know it. */
import type { PluginDeps } from "../../pipeline/plugin.ts";
import { defaultClientIdFile } from "../credentials/client-identity-config.ts";
import type { OpaConfig } from "./config.ts";
import { credentialText, WatchedFile } from "../../files/watched-file.ts";

/** The id of the file, or what its file says at the moment. */
export class AgentId {
  readonly #fixed: string | undefined;
  readonly #file: WatchedFile<string> | undefined;

  constructor(config: OpaConfig, deps: PluginDeps) {
    this.#fixed = config.agent_id;
    if (config.agent_id !== undefined) return;
    const isNamed = config.agent_id_file !== undefined;
    const isNeeded = config.bundle_url !== undefined && config.bundle_resource === undefined;
    if (!isNamed && !isNeeded) return;
    this.#file = new WatchedFile({
      path: config.agent_id_file ?? defaultClientIdFile,
      clock: deps.clock,
      parse: credentialText,
      onProblem: (problem) => deps.log.warn({ problem }, "agent id not usable"),
    });
  }

  /** Undefined when nobody states one, or its file is not there yet. */
  current(): string | undefined {
    return this.#fixed ?? this.#file?.current();
  }
}
