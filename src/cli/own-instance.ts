/** A proxy of the doctor's own, in this process, whose log lines are read instead of written. */
import type { Socket } from "node:net";
import { parseJsonObject } from "../http/json-access.ts";
import type { Problem } from "../yaml/problem.ts";
import { createLogger } from "../telemetry/log.ts";
import { LogDestination } from "../telemetry/log-destination.ts";
import { App, type AppOptions } from "../app/app.ts";
import { ConfigRejected } from "../app/build-problems.ts";
import type { BoundAddresses } from "../app/listen-options.ts";
import type { ProbeFile } from "./own-file.ts";
import { packageVersion } from "./version.ts";

/** Receives one log line, parsed. */
export type LineListener = (line: Readonly<Record<string, unknown>>) => void;

const drainMs = 1_000;

/** One running instance. */
export class OwnInstance {
  readonly #app: App;
  readonly #log: LogDestination;

  private constructor(app: App, log: LogDestination) {
    this.#app = app;
    this.#log = log;
  }

  /** Rejects with the problems of the configuration in its message. */
  static async start(
    probe: ProbeFile,
    onLine: LineListener = () => undefined,
    { agentPid, attendant }: Pick<AppOptions, "agentPid" | "attendant"> = {},
  ): Promise<OwnInstance> {
    const log = listeningDestination(onLine);
    try {
      const app = await App.start({
        file: probe.file,
        env: probe.env,
        lenient: false,
        version: packageVersion(),
        log: createLogger("info", log),
        ...(agentPid === undefined ? {} : { agentPid }),
        ...(attendant === undefined ? {} : { attendant }),
      });
      return new OwnInstance(app, log);
    } catch (error) {
      await log.close();
      if (error instanceof ConfigRejected)
        throw new Error(error.problems.map(withoutPlace).join("; "), { cause: error });
      throw error;
    }
  }

  get addresses(): BoundAddresses {
    return this.#app.addresses;
  }

  /** Serves a connection that something else accepted, as if a surface had. */
  adopt(surface: "forward" | "captured", socket: Socket): void {
    this.#app.adopt(surface, socket);
  }

  readiness(): string | undefined {
    return this.#app.readiness();
  }

  /** Resolves when every line was received. */
  async close(): Promise<void> {
    await this.#app.close(drainMs);
    await this.#log.close();
  }
}

/** The place is one in the derived text, which nobody can open. */
function withoutPlace(problem: Problem): string {
  return problem.keyPath === "" ? problem.message : `${problem.keyPath}: ${problem.message}`;
}

function listeningDestination(onLine: LineListener): LogDestination {
  const hear = (bytes: Buffer): number => {
    for (const line of bytes.toString("utf8").split("\n")) {
      const value = parseJsonObject(line);
      if (value !== undefined) onLine(value);
    }
    return bytes.length;
  };
  return new LogDestination(2, {
    fileSystem: {
      write: (_fd, bytes, done) => done(null, hear(bytes)),
      writeSync: (_fd, bytes) => hear(bytes),
    },
  });
}
