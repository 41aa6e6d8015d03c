/** Checks that the services that plugins depend on respond: key sets, token endpoints and others that they name. */
import { setTimeout as delay } from "node:timers/promises";
import type { LoadedConfig } from "../../config/load.ts";
import type { Config } from "../../config/presets.ts";
import { needsSpiffe, spiffeAudiences } from "../../config/workload-needs.ts";
import type { WorkloadIdentity } from "../../spiffe/workload-identity.ts";
import { messageOf } from "../../errors.ts";
import { JwksSource } from "../../oauth/jwks.ts";
import type { AnyPluginDefinition, PluginDefinition, PluginDeps } from "../../pipeline/plugin.ts";
import { type JwtValidationConfig } from "../../plugins/jwt-validation/config.ts";
import { keyLocationOf } from "../../plugins/jwt-validation/key-location.ts";
import { keyCallOf } from "../../plugins/jwt-validation/key-call.ts";
import { certificateOf } from "../../plugins/ext-authz/certificate.ts";
import { addressOf, type ExtAuthzConfig } from "../../plugins/ext-authz/config.ts";
import { secretOrigins } from "../../plugins/credentials/secret-config.ts";
import type { NamedSource } from "../../plugins/credentials/secret-set.ts";
import { sourcesOf } from "../../plugins/credentials/secret-users.ts";
import { ClientIdentity } from "../../plugins/credentials/client-identity.ts";
import { isOfWorkload } from "../../plugins/credentials/client-identity-config.ts";
import { type TokenExchangeConfig, tokenUrlOf } from "../../plugins/token-exchange/config.ts";
import { createLogger } from "../../telemetry/log.ts";
import { Metrics } from "../../telemetry/metrics.ts";
import { OwnListeners } from "../../upstream/own-listeners.ts";
import { buildRuntime } from "../../app/build.ts";
import { type BuildProblem, buildProblems } from "../../app/build-problems.ts";
import { CarriedState } from "../../app/carried-state.ts";
import { definitionsFor } from "../../app/definitions.ts";
import { placesOf } from "./places.ts";
import { type Finding, fail, pass } from "./report.ts";
import { secretChecks } from "./secrets.ts";
import { packageVersion } from "../version.ts";

/** One configured plugin and the function with which it calls services. */
export interface Dependent {
  readonly plugin: string;
  readonly instance: string;
  readonly config: unknown;
  /** Without those that only its sources of secrets ask. */
  readonly origins: readonly string[];
  readonly sources: readonly NamedSource[];
  readonly deps: PluginDeps;
}

/** One question to one service. */
export interface ServiceCheck {
  readonly name: string;
  run(signal: AbortSignal): Promise<Finding | readonly Finding[]>;
}

/** The pipelines of a file, built but not started, and the checks of what they depend on. */
export interface BuiltServices {
  readonly problems: readonly string[];
  readonly checks: readonly ServiceCheck[];
  close(): Promise<void>;
}

const responseLimitMs = 5_000;
const pollMs = 50;

/** Builds the pipelines as the start does. The bridge is left out: its CA has a check of its own. */
export async function buildServices(
  loaded: LoadedConfig,
  checksOf: (dependent: Dependent) => ServiceCheck[] = serviceChecks,
): Promise<BuiltServices> {
  const dependents: Dependent[] = [];
  const metrics = new Metrics({ version: packageVersion(), generation: () => 0 });
  const config = {
    ...loaded.config,
    tls_bridge: { ...loaded.config.tls_bridge, mode: "disabled" as const },
  };
  const services = {
    log: createLogger("silent"),
    metrics,
    ownListeners: new OwnListeners(),
    env: process.env,
    carried: new CarriedState(),
    definitions: (await definitionsFor(loaded)).map((known) => overheard(known, dependents)),
  };
  const built = await buildRuntime(config, 0, services, { start: false });
  if (built.kind === "failed") {
    metrics.close();
    const problems = wordProblems(loaded, built.problems);
    return { problems, checks: [], close: () => Promise.resolve() };
  }
  const { workload } = built.runtime;
  const isAsked = workload !== undefined && needsSpiffe(config) && checksOf === serviceChecks;
  return {
    problems: [],
    checks: [
      ...(isAsked ? [workloadCheck(workload, config)] : []),
      ...dependents.flatMap(checksOf),
      ...(checksOf === serviceChecks ? [placesCheck(dependents, loaded.config)] : []).flat(),
    ],
    close: async () => {
      await built.runtime.close();
      metrics.close();
    },
  };
}

function wordProblems(loaded: LoadedConfig, problems: readonly BuildProblem[]): string[] {
  return buildProblems(loaded, problems).map(
    ({ line, column, keyPath, message }) => `line ${line}:${column} ${keyPath}: ${message}`,
  );
}

/** The same definition; what its instances are made with is written down. */
function overheard(known: AnyPluginDefinition, into: Dependent[]): AnyPluginDefinition {
  const definition = known as unknown as PluginDefinition;
  const overhearing: PluginDefinition = {
    ...definition,
    create: (config, deps) => {
      const sources = sourcesOf(definition, config);
      const asked = new Set(sources.flatMap((named) => secretOrigins(named.config)));
      into.push({
        plugin: definition.name,
        instance: deps.instance,
        config,
        origins: (definition.origins?.(config) ?? []).filter((origin) => !asked.has(origin)),
        sources,
        deps,
      });
      return definition.create(config, deps);
    },
  };
  return overhearing as unknown as AnyPluginDefinition;
}

function serviceChecks(dependent: Dependent): ServiceCheck[] {
  return [...secretChecks(dependent), ...ownChecks(dependent)];
}

function ownChecks(dependent: Dependent): ServiceCheck[] {
  const { plugin, config, origins } = dependent;
  // The assembler parsed the configuration with the schema of the plugin of this name.
  if (plugin === "jwt-validation") return [keySetCheck(dependent, config as JwtValidationConfig)];
  if (plugin === "token-exchange") return tokenChecks(dependent, config as TokenExchangeConfig);
  if (plugin === "ext-authz") {
    const authz = config as ExtAuthzConfig;
    if (authz.grpc_service !== undefined) return [grpcCheck(dependent, authz)];
  }
  return origins.map((origin) => originCheck(dependent, origin));
}

function placesCheck(dependents: readonly Dependent[], config: Config): ServiceCheck[] {
  const findings = dependents.flatMap((dependent) => placesOf(dependent, config));
  return findings.length === 0 ? [] : [{ name: "places", run: () => Promise.resolve(findings) }];
}

/** What serving needs of the Workload API, asked for as serving does. */
function workloadCheck(workload: WorkloadIdentity, config: Config): ServiceCheck {
  return {
    name: "spiffe",
    run: async (signal) => {
      const { socket = "", x509_files: files } = config.spiffe ?? {};
      const place = files?.cert_file ?? socket;
      const audiences = spiffeAudiences(config);
      const reason = await reasonInTime(() => workload.notReady(), signal);
      if (reason !== undefined)
        return fail(
          `${place}: ${reason}`,
          files === undefined
            ? "see that the agent runs, that its socket is mounted here, and that this workload is registered with it"
            : "see that the files of spiffe.x509_files are there, and that they belong together",
        );
      const { spiffeId, expiresAt = 0 } = workload.x509.current() ?? {};
      const expires = new Date(expiresAt).toISOString();
      const svid = spiffeId === undefined ? [] : [`${spiffeId}, expires ${expires}`];
      const tokens = audiences.map((audience) => `a JWT-SVID for ${audience}`);
      return pass(`${place}: ${[...svid, ...tokens].join("; ")}`);
    },
  };
}

/** Why something is still missing when the time for an answer is over; asking begins what brings it. */
async function reasonInTime(
  ask: () => string | undefined,
  signal: AbortSignal,
): Promise<string | undefined> {
  const deadline = performance.now() + responseLimitMs;
  for (;;) {
    const reason = ask();
    if (reason === undefined || performance.now() > deadline || signal.aborted) return reason;
    await delay(pollMs, undefined, { signal }).catch(() => undefined);
  }
}

function keySetCheck({ instance, deps }: Dependent, config: JwtValidationConfig): ServiceCheck {
  const location = keyLocationOf(config);
  const place = location.url;
  return {
    name: "jwks",
    run: async () => {
      const source = new JwksSource({ location, clock: { now: () => Date.now() } });
      const problem = await new Promise<string | undefined>((resolve) => {
        source.warm({ call: keyCallOf(deps), onFetch: resolve });
      });
      if (problem === undefined) return pass(`${instance}: ${shown(place)} has keys`);
      return fail(
        `${instance}: ${shown(place)}: ${problem}`,
        "set jwks_url to the issuer's key set, and see that this machine reaches it",
      );
    },
  };
}

function tokenChecks(dependent: Dependent, config: TokenExchangeConfig): ServiceCheck[] {
  const inline = config.routes.rules.flatMap(({ token_url: url }) => url ?? []);
  const urls = [...new Set([tokenUrlOf(config), ...inline])];
  const covered = new Set(urls.map((url) => new URL(url).origin));
  // A secret in the file itself has nothing that could be missing; a source of one has a check of its own.
  const isInline = config.identity.type === "client-secret" && !!config.identity.client_secret;
  return [
    ...(isInline ? [] : [credentialsCheck(dependent, config)]),
    ...urls.map((url) => tokenEndpointCheck(dependent, url)),
    ...dependent.origins
      .filter((origin) => !covered.has(origin))
      .map((origin) => originCheck(dependent, origin)),
  ];
}

/** Whether the files of the client's own identity are there and hold what they should; nothing of them is sent. */
function credentialsCheck(
  { instance, deps }: Dependent,
  { identity }: TokenExchangeConfig,
): ServiceCheck {
  return {
    name: "identity",
    run: async (signal) => {
      const client = new ClientIdentity(identity, deps);
      const ask = (): string | undefined => {
        const ready = client.ready();
        return ready === true ? undefined : ready;
      };
      const reason = isOfWorkload(identity) ? await reasonInTime(ask, signal) : ask();
      if (reason === undefined)
        return pass(`${instance}: the credentials of ${identity.type} are there`);
      return fail(`${instance}: ${reason}`, "see to the files that identity names");
    },
  };
}

/** A request without credentials: an endpoint that is one refuses it in the words of RFC 6749 section 5.2. */
function tokenEndpointCheck({ instance, deps }: Dependent, url: string): ServiceCheck {
  return {
    name: "token",
    run: async (signal) => {
      const remedy = "set token_url to the provider's token endpoint";
      try {
        const { status } = await deps.fetch(url, {
          method: "POST",
          headers: { "content-type": "application/x-www-form-urlencoded" },
          body: "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange",
          signal,
          timeoutMs: responseLimitMs,
        });
        const what = `${instance}: ${shown(url)} answered ${status}`;
        if (status >= 500) return fail(what, "the provider is not well: look at its log");
        const isEndpoint = ![404, 405, 410].includes(status) && (status < 300 || status >= 400);
        return isEndpoint ? pass(`${what} to a request without credentials`) : fail(what, remedy);
      } catch (error) {
        return fail(`${instance}: ${shown(url)}: ${messageOf(error)}`, remedy);
      }
    },
  };
}

/** The health of the service: one that does not tell it speaks gRPC all the same. */
function grpcCheck({ instance, deps }: Dependent, config: ExtAuthzConfig): ServiceCheck {
  const address = addressOf(config);
  return {
    name: "service",
    run: async (signal) => {
      const base = address.startsWith("unix://") ? `${address}:` : address;
      try {
        const certificate = certificateOf(config, deps)();
        await deps.fetch(`${base}/grpc.health.v1.Health/Check`, {
          isGrpc: true,
          certificate,
          signal,
          timeoutMs: responseLimitMs,
        });
        return pass(`${instance}: ${address} answers over gRPC`);
      } catch (error) {
        const text = messageOf(error);
        if (/ refused: (?:Unimplemented|NotFound)/.test(text))
          return pass(`${instance}: ${address} answers over gRPC`);
        return fail(
          `${instance}: ${text}`,
          `see that this machine reaches ${address}, that it speaks gRPC there, and what tls says`,
        );
      }
    },
  };
}

function originCheck({ instance, deps }: Dependent, origin: string): ServiceCheck {
  return {
    name: "service",
    run: async (signal) => {
      try {
        const { status } = await deps.fetch(`${origin}/`, { signal, timeoutMs: responseLimitMs });
        return pass(`${instance}: ${origin} answers (${status})`);
      } catch (error) {
        return fail(
          `${instance}: ${origin}: ${messageOf(error)}`,
          `see that this machine reaches ${origin}, or change the address in the plugin's config`,
        );
      }
    },
  };
}

/** Without user information and query, which may hold credentials. */
function shown(text: string): string {
  const { origin, pathname } = new URL(text);
  return `${origin}${pathname}`;
}
