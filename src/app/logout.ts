/** A login has ended: every plugin that remembers something of it drops that, here and in every replica. */
import type { LogoutOutcome } from "../admin/logout.ts";
import { type EndedLogin, endedLoginOf } from "../oauth/logout-token.ts";
import type { Logout, LogoutReading } from "../pipeline/plugin.ts";
import type { Step } from "../pipeline/step-runner.ts";
import type { Runtime } from "../proxy/flow/runtime.ts";
import type { StateFeed } from "../state/store.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";

/** What a logout is told to. */
export interface LogoutServices {
  runtime(): Pick<Runtime, "inbound" | "outbound">;
  readonly log: Logger;
  readonly metrics: Metrics;
  /** How replicas hear of it; absent where there are none. */
  readonly logouts?: StateFeed | undefined;
  /** Judges open tunnels again. */
  recheck(): void;
}

/** Has the token checked by the plugins that take some, and tells all of them of the login that it ends. */
export async function endLogin(token: string, services: LogoutServices): Promise<LogoutOutcome> {
  const { log, metrics, logouts } = services;
  const reading = await firstReading(token, stepsOf(services));
  if (reading === undefined) return { kind: "off" };
  if (reading.kind !== "ended") {
    metrics.counters.logouts_total.of(reading.kind).value += 1;
    log.warn(reading, "logout token not accepted");
    return reading;
  }
  const { login } = reading;
  metrics.counters.logouts_total.of("accepted").value += 1;
  const dropped = drop(login, services);
  log.info({ ...login, dropped }, "login ended by its issuer");
  services.recheck();
  await logouts?.tell(JSON.stringify(login));
  return { kind: "accepted" };
}

/** Does the same for logins of which replicas tell. */
export function hearLogouts(services: LogoutServices): void {
  const { log, metrics, logouts } = services;
  logouts?.listen((texts) => {
    for (const text of texts) {
      const login = endedLoginOf(text);
      if (login === undefined) continue;
      metrics.counters.logouts_total.of("heard").value += 1;
      const dropped = drop(login, services);
      log.info({ ...login, dropped }, "login ended, as another replica says");
    }
    services.recheck();
  });
}

function drop(login: EndedLogin, services: LogoutServices): number {
  const logout: Logout = { ...login, tokens: new Set() };
  let dropped = 0;
  for (const { name, plugin } of stepsOf(services)) {
    try {
      dropped += plugin.onLogout?.(logout) ?? 0;
    } catch (err) {
      // The others remember something of the login as well.
      services.log.error({ plugin: name, err }, "what a login left was not dropped");
    }
  }
  services.metrics.counters.logout_dropped_total.of().value += dropped;
  return dropped;
}

function stepsOf(services: LogoutServices): Step[] {
  const { inbound, outbound } = services.runtime();
  return [...inbound.steps, ...outbound.steps];
}

/** The first plugin's that accepts the token, else the reading that says most; undefined where none takes any. */
async function firstReading(
  token: string,
  steps: readonly Step[],
): Promise<LogoutReading | undefined> {
  let best: LogoutReading | undefined;
  for (const { plugin } of steps) {
    const reading = await plugin.readLogout?.(token);
    if (reading?.kind === "ended") return reading;
    const isOther = best?.kind === "refused" && best.cause === "issuer_mismatch";
    if (reading !== undefined && (best === undefined || isOther)) best = reading;
  }
  return best;
}
