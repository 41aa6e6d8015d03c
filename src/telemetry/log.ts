/** Structured logs: one JSON line per event on stderr, with fields that can hold a secret censored. */
import { pino, type Logger as PinoLogger } from "pino";

/** The logger that is handed down from app/; events are `log.info({ flow, code }, "upstream refused")`. */
export type Logger = PinoLogger;

/** Levels that the file and `LOG_LEVEL` accept. */
export type LogLevel = "debug" | "info" | "warn" | "error" | "silent";

/** Field names whose values never belong in a log, whoever puts them there by accident. */
const censored = [
  "authorization",
  "proxy-authorization",
  "cookie",
  "set-cookie",
  "token",
  "secret",
  "password",
];

/** Makes the process's logger. `destination` is a file descriptor: 2 is stderr. */
export function createLogger(level: LogLevel, destination = 2): Logger {
  const paths = censored.flatMap((name) => {
    const key = /^[a-z]+$/.test(name) ? `.${name}` : `["${name}"]`;
    return [key.replace(/^\./, ""), `*${key}`, `headers${key}`, `*.headers${key}`];
  });
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }) },
      redact: { paths, censor: "[secret]" },
    },
    // Synchronous with a buffer: batching is the cheapest way to log (docs/adr/0004), and app/ flushes it by timer.
    pino.destination({ dest: destination, sync: true, minLength: 4096 }),
  );
}
