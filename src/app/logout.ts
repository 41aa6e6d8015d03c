/** A login has ended: every plugin that remembers something of it drops that. */
import type { LogoutOutcome } from "../admin/logout.ts";
import type { Logout, LogoutReading, Plugin } from "../pipeline/plugin.ts";
import type { Runtime } from "../proxy/flow/runtime.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";

/** What a logout is told to. */
export interface LogoutServices {
  readonly runtime: Pick<Runtime, "inbound" | "outbound">;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** Judges open tunnels again. */
  recheck(): void;
}

/** Has the token checked by the plugins that take some, and tells all of them of the login that it ends. */
export async function endLogin(token: string, services: LogoutServices): Promise<LogoutOutcome> {
  const { log, metrics, runtime } = services;
  const plugins = [...runtime.inbound.steps, ...runtime.outbound.steps].map(({ plugin }) => plugin);
  const reading = await firstReading(token, plugins);
  if (reading === undefined) return { kind: "off" };
  if (reading.kind !== "ended") {
    metrics.counters.logouts_total.of(reading.kind).value += 1;
    log.warn(reading, "logout token not accepted");
    return reading;
  }
  const logout: Logout = { ...reading.login, tokens: new Set() };
  let dropped = 0;
  for (const plugin of plugins) dropped += plugin.onLogout?.(logout) ?? 0;
  metrics.counters.logouts_total.of("accepted").value += 1;
  metrics.counters.logout_dropped_total.of().value += dropped;
  const { issuer, subject, session } = logout;
  log.info({ issuer, subject, session, dropped }, "login ended by its issuer");
  services.recheck();
  return { kind: "accepted" };
}

/** The first plugin's that accepts the token, else the reading that says most; undefined where none takes any. */
async function firstReading(
  token: string,
  plugins: readonly Plugin[],
): Promise<LogoutReading | undefined> {
  let best: LogoutReading | undefined;
  for (const plugin of plugins) {
    const reading = await plugin.readLogout?.(token);
    if (reading?.kind === "ended") return reading;
    const isOther = best?.kind === "refused" && best.cause === "issuer_mismatch";
    if (reading !== undefined && (best === undefined || isOther)) best = reading;
  }
  return best;
}
