/** The proxy's log lines, for the logger of the program that embeds it. */
import { parseJsonObject } from "../http/json-access.ts";
import { createLogger, type Logger } from "../telemetry/log.ts";

type Write = (fields: Readonly<Record<string, unknown>>, message: string) => void;

/** Takes log lines; pino and `console` are such loggers. What it has no method for is not logged. */
export interface ProxyLogger {
  debug?: Write;
  info?: Write;
  warn?: Write;
  error?: Write;
}

const levels = ["debug", "info", "warn", "error"] as const;

/** Without a logger nothing is written anywhere. */
export function givenLog(logger: ProxyLogger | undefined): Logger {
  if (logger === undefined) return createLogger("silent", { write: () => undefined });
  return createLogger("info", { write: (line) => pass(line, logger) });
}

function pass(line: string, logger: ProxyLogger): void {
  const { level, msg, time: _time, ...fields } = parseJsonObject(line) ?? {};
  // `fatal` is the one beyond.
  const method = levels.find((known) => known === level) ?? "error";
  try {
    logger[method]?.(fields, typeof msg === "string" ? msg : "");
  } catch {
    // A logger that fails has not heard the line; no flow fails of it.
  }
}
