/** One log line per decision: what was asked, what came of it, how long it took; never the input. */
import type { Decision, PluginDeps } from "../../pipeline/plugin.ts";
import type { OpaConfig } from "./config.ts";

/** What is known of one decision. */
export interface DecisionRecord {
  readonly id: string;
  readonly path: string;
  readonly flow: string;
  readonly latencyMs: number;
  readonly decision: Decision;
  /** The fields that the policy was shown. */
  readonly headers: unknown;
}

/** Fields that hold credentials under names of their own. */
const secretField = /token|secret|password|credential|session|signature|auth|api[-_]?key|-key$/i;

/** Writes the lines, or none. */
export class DecisionLog {
  readonly #log: PluginDeps["log"];
  readonly #isEnabled: boolean;
  readonly #showsHeaders: boolean;

  constructor({ enabled, include }: OpaConfig["decision_log"], log: PluginDeps["log"]) {
    this.#log = log;
    this.#isEnabled = enabled;
    this.#showsHeaders = include.includes("headers");
  }

  write({ id, path, flow, latencyMs, decision, headers }: DecisionRecord): void {
    if (!this.#isEnabled) return;
    const told = decision.action === "deny" ? { message: decision.denial.message } : {};
    const error = decision.details?.["error"];
    this.#log.info(
      {
        flow,
        decision_id: id,
        path,
        result: decision.action === "skip" ? "undefined" : decision.action,
        reason: decision.reason,
        ...told,
        ...(error === undefined ? {} : { error }),
        latencyMs: Math.round(latencyMs * 1_000) / 1_000,
        ...(this.#showsHeaders ? { headers: redacted(headers) } : {}),
      },
      "opa decision",
    );
  }
}

function redacted(headers: unknown): Record<string, unknown> {
  const shown: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(headers ?? {})) {
    shown[name] = secretField.test(name) ? "[redacted]" : value;
  }
  return shown;
}
