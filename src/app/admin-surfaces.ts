/** The operator's servers of one process: health, stats and, where sessions are on, the session API. */
import { z } from "zod";
import {
  type ConfiguredPlugin,
  describePipeline,
  describePlugin,
  type PipelineView,
} from "../admin/catalogue.ts";
import { approvalRoutes } from "../admin/approvals.ts";
import { consoleRoutes } from "../admin/console.ts";
import { budgetRoutes } from "../admin/budgets.ts";
import { denialRoutes } from "../admin/denials.ts";
import { proofRoutes } from "../admin/proofs.ts";
import { healthRoutes } from "../admin/health.ts";
import { keyRoutes } from "../admin/keys.ts";
import { killRoutes } from "../admin/kill.ts";
import { logoutRoutes } from "../admin/logout.ts";
import { AdminServer, type HeadWatch } from "../admin/server.ts";
import { sessionRoutes } from "../admin/sessions.ts";
import { statsRoutes } from "../admin/stats.ts";
import { type StatusSources, statusRoutes } from "../admin/status.ts";
import type { Desk } from "../approval/desk.ts";
import type { Config } from "../config/presets.ts";
import { surfaces } from "../config/surfaces.ts";
import { type BindAddress, unavailable } from "../listener/bind.ts";
import type { AnyPluginDefinition, PluginDefinition } from "../pipeline/plugin.ts";
import { killName } from "../pipeline/kill-switch.ts";
import type { Runtime } from "../proxy/flow/runtime.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import type { DataPlane } from "./data-plane.ts";
import { endLogin, hearLogouts, type LogoutServices } from "./logout.ts";
import { bindAddressOf } from "./listen-options.ts";
import { readKill } from "./kills/kill-file.ts";
import { callbackRoutes } from "./approvals/callback.ts";
import { deciderOf, operatorsOf } from "./approvals/operators.ts";
import type { Kills } from "./kills/kills.ts";
import type { SessionParts } from "./session-parts.ts";

/** Where the surfaces read from. */
export interface AdminSources extends StatusSources, LogoutServices {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly heads: HeadWatch;
  readonly sessions: SessionParts | undefined;
  /** Every one that a file can name. */
  readonly definitions: () => Promise<readonly AnyPluginDefinition[]>;
  config(): Config;
  readonly plane: DataPlane;
  /** The generation that is being served. */
  runtime(): Runtime;
  readiness(): string | undefined;
  readonly kills: Kills;
  readonly approvals: Desk;
  /** The upstream proxy that the file asks for beside the accepted one; undefined where no file had the block. */
  chain(): object | undefined;
}

/** One server that is to be bound. */
export interface AdminSurface {
  readonly surface: "health" | "stats" | "sessions";
  readonly address: string;
  readonly server: AdminServer;
}

/** The servers in the order in which they are to be bound. */
export function adminSurfaces(config: Config, sources: AdminSources): AdminSurface[] {
  const { log, metrics, heads, plane } = sources;
  const before = refreshing(plane, false);
  hearLogouts(sources);
  const planned: AdminSurface[] = [
    {
      surface: "stats",
      address: config.stats.address,
      server: new AdminServer({
        name: "stats",
        before,
        log,
        heads,
        evictions: metrics.evictions,
        routes: [
          ...statsRoutes({
            config: () => withChain(sources.config(), "upstream_proxy_status", sources.chain()),
            reloadStatus: () =>
              withChain(sources.reloadStatus(), "upstream_proxy", sources.chain()),
            metrics,
          }),
          ...keyRoutes(keysOf(sources)),
          ...logoutRoutes((token) => endLogin(token, sources)),
          ...callbackRoutes(config, log, deciderOf(config, sources.approvals)),
        ],
      }),
    },
  ];
  const sessionSurface = sessionApi(config, sources);
  if (sessionSurface !== undefined) planned.push(sessionSurface);
  planned.push({
    surface: "health",
    address: config.listener.health_addr,
    server: new AdminServer({
      name: "health",
      log,
      heads,
      evictions: metrics.evictions,
      routes: healthRoutes({
        refresh: before,
        readiness: () => sources.readiness(),
        note: () => plane.note(),
      }),
    }),
  });
  return planned;
}

/** Has the plane's threads say how they are; undefined where it has none. */
function refreshing(plane: DataPlane, details: boolean): (() => Promise<void>) | undefined {
  return plane.refresh === undefined ? undefined : async () => plane.refresh?.(details);
}

function keysOf({ sessions }: AdminSources): (() => readonly object[]) | undefined {
  const checkpoints = sessions?.audit?.checkpoints;
  return checkpoints && ((): readonly object[] => checkpoints.keys);
}

/** Undefined where sessions are off, or nobody is to read them. */
function sessionApi(config: Config, sources: AdminSources): AdminSurface | undefined {
  const { log, heads, metrics, sessions, plane } = sources;
  const address = config.listener.session_api_addr;
  if (sessions?.kept === undefined || address === undefined) return undefined;
  const { store, usage } = sessions.kept;
  return {
    surface: "sessions",
    address,
    server: new AdminServer({
      name: "sessions",
      before: refreshing(plane, true),
      log,
      heads,
      evictions: metrics.evictions,
      secret: sessions.apiSecret,
      operators: operatorsOf(config, log),
      corsOrigins: config.session.api_cors_origins,
      routes: [
        ...consoleRoutes(),
        ...statusRoutes(sources),
        ...keyRoutes(keysOf(sources)),
        ...proofRoutes(sessions.audit?.prover),
        ...denialRoutes({
          observations: () => plane.observations().flat(),
          additions: (chosen) => sources.runtime().outbound.additions(chosen, plane.observations()),
        }),
        ...budgetRoutes(async () => {
          const { inbound, outbound } = sources.runtime();
          const threads = plane.budgets();
          return [
            ...(await inbound.budgetsOf(threads.map((budgets) => budgets.inbound))),
            ...(await outbound.budgetsOf(threads.map((budgets) => budgets.outbound))),
          ];
        }),
        ...killRoutes({
          hasSecret: sessions.apiSecret !== undefined,
          kills: () => sources.kills.kills,
          read: readKill,
          kill: (kill) => sources.kills.kill(kill, "operator"),
          release: (kill) => sources.kills.release(killName(kill), "operator"),
        }),
        ...approvalRoutes({
          pending: () => sources.approvals.pending,
          decide: deciderOf(config, sources.approvals),
        }),
        ...sessionRoutes({
          store,
          usage,
          pipelines: async () => pipelineView(sources.config(), await sources.definitions()),
          plugins: async () =>
            (await sources.definitions())
              .filter((definition) => definition.unavailable === undefined)
              .map((definition) => describePlugin(definition, schemaOf(definition))),
        }),
      ],
    }),
  };
}

/** Opens them in order; an optional one that cannot be bound is logged and left out. */
export async function bindAdmin(
  planned: readonly AdminSurface[],
  log: Logger,
  onBound: (surface: AdminSurface["surface"], server: AdminServer, bound: BindAddress) => void,
): Promise<void> {
  for (const { surface, address, server } of planned) {
    const wanted = bindAddressOf(address, surface);
    try {
      const bound = await server.listen(wanted);
      onBound(surface, server, { host: bound.address, port: bound.port });
    } catch (error) {
      // The session API shows what happened; traffic does not depend on it.
      const why = unavailable(wanted, error instanceof Error ? error : new Error(String(error)));
      if (!("optional" in surfaces[surface])) throw why;
      log.error({ surface, address, error: why.message }, "operator surface could not be bound");
    }
  }
}

function withChain<T extends object>(shown: T, key: string, chain: object | undefined): T {
  return chain === undefined ? shown : { ...shown, [key]: chain };
}

function pipelineView(config: Config, definitions: readonly AnyPluginDefinition[]): PipelineView {
  const configured = (direction: "inbound" | "outbound"): ConfiguredPlugin[] =>
    config.pipeline[direction].plugins.flatMap(({ name, on_error: onError, config: settings }) => {
      const definition = definitions.find((candidate) => candidate.name === name);
      if (definition === undefined) return [];
      return [{ definition, onError, ...(settings === undefined ? {} : { config: settings }) }];
    });
  return {
    inbound: describePipeline("inbound", configured("inbound")),
    outbound: describePipeline("outbound", configured("outbound")),
  };
}

function schemaOf(definition: AnyPluginDefinition): unknown {
  const schema = (definition as PluginDefinition).config;
  return schema === undefined
    ? undefined
    : z.toJSONSchema(schema, { io: "input", unrepresentable: "any" });
}
