/** The operator's servers of one process: health, stats and, where sessions are on, the session API. */
import { z } from "zod";
import {
  type ConfiguredPlugin,
  describePipeline,
  describePlugin,
  type PipelineView,
} from "../admin/catalogue.ts";
import { consoleRoutes } from "../admin/console.ts";
import { denialRoutes, type PluginObservations } from "../admin/denials.ts";
import { healthRoutes } from "../admin/health.ts";
import { AdminServer } from "../admin/server.ts";
import { sessionRoutes } from "../admin/sessions.ts";
import { statsRoutes } from "../admin/stats.ts";
import { type StatusSources, statusRoutes } from "../admin/status.ts";
import type { Config } from "../config/presets.ts";
import type { AnyPluginDefinition, PluginDefinition } from "../pipeline/plugin.ts";
import type { SessionStore } from "../session/store.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";

/** Where the surfaces read from. */
export interface AdminSources extends StatusSources {
  readonly log: Logger;
  readonly metrics: Metrics;
  readonly sessions: SessionStore | undefined;
  readonly definitions: readonly AnyPluginDefinition[];
  config(): Config;
  observations(): readonly PluginObservations[];
  readiness(): string | undefined;
  note(): string | undefined;
}

/** One server that is to be bound. */
export interface AdminSurface {
  readonly surface: "health" | "stats" | "sessions";
  readonly address: string;
  readonly server: AdminServer;
  /** True where the process can do its work without it. */
  readonly optional: boolean;
}

/** The servers in the order in which they are to be bound. */
export function adminSurfaces(config: Config, sources: AdminSources): AdminSurface[] {
  const { log, metrics, sessions } = sources;
  const surfaces: AdminSurface[] = [
    {
      surface: "stats",
      address: config.stats.address,
      optional: false,
      server: new AdminServer({
        name: "stats",
        log,
        routes: statsRoutes({
          config: () => sources.config(),
          reloadStatus: () => sources.reloadStatus(),
          metrics,
        }),
      }),
    },
  ];
  const sessionAddress = config.listener.session_api_addr;
  if (sessions !== undefined && sessionAddress !== undefined) {
    surfaces.push({
      surface: "sessions",
      address: sessionAddress,
      optional: true,
      server: new AdminServer({
        name: "sessions",
        log,
        routes: [
          ...consoleRoutes(),
          ...statusRoutes(sources),
          ...denialRoutes(() => sources.observations()),
          ...sessionRoutes({
            store: sessions,
            pipelines: () => pipelineView(sources.config(), sources.definitions),
            plugins: () =>
              sources.definitions.map((definition) =>
                describePlugin(definition, schemaOf(definition)),
              ),
          }),
        ],
      }),
    });
  }
  surfaces.push({
    surface: "health",
    address: config.listener.health_addr,
    optional: false,
    server: new AdminServer({
      name: "health",
      log,
      routes: healthRoutes({
        readiness: () => sources.readiness(),
        note: () => sources.note(),
      }),
    }),
  });
  return surfaces;
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
