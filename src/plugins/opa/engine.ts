/** Makes the engine that a configuration names, shared by the entries and the generations that name the same one. */
import { hash } from "node:crypto";
import { durationMs } from "../../duration.ts";
import { messageOf } from "../../errors.ts";
import { BundleFile } from "../../opa/bundle-file.ts";
import { BundlePoller } from "../../opa/bundle-poller.ts";
import {
  type Credentials,
  type DecisionEngine,
  decisionPaths,
  type PolicyObserver,
} from "../../opa/decision-engine.ts";
import { ServerEngine, type ServerState } from "../../opa/server-engine.ts";
import { PluginConfigError, type PluginDeps } from "../../pipeline/plugin.ts";
import { Secret } from "../../secret.ts";
import { bundleRules } from "./bundle-rules.ts";
import { type OpaConfig, pollingOf } from "./config.ts";
import { credentialText, WatchedFile } from "../../files/watched-file.ts";
import type { SecretSet } from "../credentials/secret-set.ts";
import { ServiceBearer } from "../credentials/service-bearer.ts";

/** An engine in the hands of one plugin instance. */
export interface HeldEngine {
  readonly engine: DecisionEngine;
  /** Lets the engine reach its service; called once the generation starts. */
  start(): Promise<void> | void;
  release(): void;
}

/** Throws an Error when a local bundle cannot be used. */
export function holdEngine(
  config: OpaConfig,
  deps: PluginDeps,
  { agentId, secrets }: { readonly agentId: () => string | undefined; readonly secrets: SecretSet },
): HeldEngine {
  if (config.bundle_path !== undefined) return holdFile(config, config.bundle_path, deps);
  const credentials = credentialsOf(config, deps, secrets);
  if (config.server_url !== undefined)
    return holdServer(config, config.server_url, { deps, credentials });
  return holdPoller(config, config.bundle_url ?? "", { deps, credentials, agentId });
}

function holdFile(config: OpaConfig, path: string, deps: PluginDeps): HeldEngine {
  const timeoutMs = durationMs(config.decision_timeout);
  const now = (): number => deps.clock.now();
  const observer = observerOf(config, deps);
  let engine: BundleFile;
  try {
    engine = deps.carry(
      keyOf("file", [path, timeoutMs, config.compiler, config.verification]),
      () => new BundleFile({ path, timeoutMs, now, observer, rules: bundleRules(config) }),
    );
  } catch (error) {
    if (error instanceof PluginConfigError) throw error;
    throw new PluginConfigError([{ path: ["bundle_path"], message: messageOf(error) }]);
  }
  const start = async (): Promise<void> => {
    await engine.settled();
    const ready = engine.ready();
    // What takes a program to find out is found out before the generation serves.
    if (ready !== true) throw new Error(ready);
  };
  return { engine, start, release: () => undefined };
}

function holdPoller(
  config: OpaConfig,
  base: string,
  {
    deps,
    credentials,
    agentId,
  }: {
    readonly deps: PluginDeps;
    readonly credentials: Credentials;
    readonly agentId: () => string | undefined;
  },
): HeldEngine {
  const { minSeconds, maxSeconds } = pollingOf(config);
  const { bundle_resource: resource, agent_id: id, agent_id_file: idFile } = config;
  const timeoutMs = durationMs(config.decision_timeout);
  const { bearer_token: token, bearer_token_file: file, compiler, verification } = config;
  const owner = {};
  const engine = deps.carry(
    keyOf("url", [
      [base, resource, id, idFile, minSeconds, maxSeconds, timeoutMs, token, file],
      [compiler, verification, config.redirect_origins],
    ]),
    () =>
      new BundlePoller({
        location: () => bundleLocation(base, resource, agentId),
        credentials,
        minDelayMs: minSeconds * 1_000,
        maxDelayMs: maxSeconds * 1_000,
        timeoutMs,
        observer: observerOf(config, deps),
        rules: bundleRules(config),
      }),
  );
  return {
    engine,
    start: () => engine.attach(owner, deps.fetch),
    release: () => engine.detach(owner),
  };
}

function holdServer(
  config: OpaConfig,
  url: string,
  { deps, credentials }: { readonly deps: PluginDeps; readonly credentials: Credentials },
): HeldEngine {
  const state = deps.carry<ServerState>(keyOf("server", [url]), () => ({ isReached: false }));
  const engine = new ServerEngine({
    base: url.startsWith("unix://") ? `${url}:` : url.replace(/\/+$/, ""),
    call: deps.fetch,
    credentials,
    timeoutMs: durationMs(config.decision_timeout),
    state,
    onProblem: (problem) => deps.log.warn({ problem }, "opa server not reached"),
  });
  return { engine, start: () => engine.start(), release: () => engine.close() };
}

/** Where the Go program's OPA asks for the bundle: the id is escaped as a form value is. */
export function bundleLocation(
  base: string,
  resource: string | undefined,
  agentId: () => string | undefined,
): string {
  const root = base.replace(/\/+$/, "");
  if (resource !== undefined) return `${root}/${resource.replace(/^\/+/, "")}`;
  const id = agentId();
  if (id === undefined) throw new Error("the agent's id is pending (agent_id, agent_id_file)");
  const query = new URLSearchParams({ spiffe: id.replace(/^spiffe:\/\//, "") });
  return `${root}/bundles?${query.toString()}`;
}

function keyOf(kind: string, settings: readonly unknown[]): string {
  return `opa:${kind}:${hash("sha256", JSON.stringify(settings), "base64url")}`;
}

function credentialsOf(
  { bearer_token: token, bearer_token_file: path }: OpaConfig,
  deps: PluginDeps,
  secrets: SecretSet,
): Credentials {
  if (path === undefined) {
    const source = secrets.get("bearer_token");
    const key = "bearer_token_file";
    return new ServiceBearer({ token, file: undefined, fileKey: key, source }).fields;
  }
  const file = new WatchedFile({
    path,
    clock: deps.clock,
    parse: (text) => new Secret(credentialText(text)),
    onProblem: (problem) => deps.log.warn({ problem }, "opa token file not usable"),
  });
  return () => {
    const read = file.current();
    return Promise.resolve(read === undefined ? {} : { authorization: `Bearer ${read.reveal()}` });
  };
}

function observerOf(config: OpaConfig, deps: PluginDeps): PolicyObserver {
  return {
    onLoaded: ({ source, revision, entrypoints }) => {
      deps.count("policy_loaded");
      deps.log.info({ source, revision, entrypoints }, "opa policy loaded");
      const without = decisionPaths.filter((path) => !entrypoints.includes(path));
      if (without.length > 0) {
        deps.log.warn(
          { documents: without, on_undefined: config.on_undefined },
          "opa policy was built without these documents: they count as undefined",
        );
      }
    },
    onProblem: (problem) => {
      deps.count("policy_rejected");
      deps.log.error({ problem }, "opa policy not used, the last good one stays");
    },
    onKilled: (path) => {
      deps.count("evaluation_killed");
      deps.log.error({ path }, "opa evaluation took too long and was ended");
    },
  };
}
