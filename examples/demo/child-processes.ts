/** The two processes of the demo besides its own: the proxy, as anybody would start it, and the agent. */
import { type ChildProcess, fork, spawn } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const root = new URL("../../", import.meta.url);
const startLimitMs = 15_000;

/** Where the proxy listens. */
export interface ProxyPorts {
  readonly reverse: number;
  readonly forward: number;
  readonly stats: number;
  readonly sessions: number;
  readonly health: number;
}

/** The running proxy. */
export interface ProxyProcess {
  readonly ports: ProxyPorts;
  /** Its log so far, one JSON object per line. */
  readonly log: readonly string[];
  /** Sends SIGTERM and resolves with the exit code. */
  stop(): Promise<number | null>;
}

/** Starts `authbridge-proxy --config FILE` and waits until it says that it serves. */
export async function startProxy(
  file: string,
  environment: Readonly<Record<string, string>>,
): Promise<ProxyProcess> {
  const main = fileURLToPath(new URL("src/main.ts", root));
  const child = spawn(process.execPath, [main, "--config", file], {
    env: { ...process.env, ...environment },
    stdio: ["ignore", "ignore", "pipe"],
    // Ctrl+C is for the demo, which then asks the proxy to stop: two signals would mean "at once".
    detached: true,
  });
  process.once("exit", () => child.kill("SIGKILL"));
  const log: string[] = [];
  const ports = await within(
    startLimitMs,
    new Promise<ProxyPorts>((resolve, reject) => {
      createInterface({ input: child.stderr }).on("line", (line) => {
        log.push(line);
        const found = servingPorts(line);
        if (found !== undefined) resolve(found);
      });
      child.once("exit", () => reject(new Error(`the proxy did not start:\n${log.join("\n")}`)));
    }),
    "the proxy to serve",
  );
  return { ports, log, stop: () => stop(child) };
}

/** Starts the agent behind the proxy, with its HTTP_PROXY. */
export async function startAgent(
  port: number,
  forwardPort: number,
  services: Readonly<Record<string, string>>,
): Promise<{ stop(): Promise<number | null> }> {
  const child = fork(fileURLToPath(new URL("agent.ts", import.meta.url)), {
    env: {
      ...process.env,
      AGENT_PORT: String(port),
      AGENT_SERVICES: JSON.stringify(services),
      // NODE_USE_ENV_PROXY makes Node read the other two, as curl, Python and Go do by themselves.
      NODE_USE_ENV_PROXY: "1",
      HTTP_PROXY: `http://127.0.0.1:${forwardPort}`,
      http_proxy: `http://127.0.0.1:${forwardPort}`,
      NO_PROXY: "",
      no_proxy: "",
    },
  });
  const failed = once(child, "exit").then(() => {
    throw new Error("the agent did not start");
  });
  await within(startLimitMs, Promise.race([once(child, "message"), failed]), "the agent to listen");
  failed.catch(() => undefined);
  return { stop: () => stop(child) };
}

/**
 * A port that is free now, for the agent: the proxy has to know it before the agent runs. It is taken
 * from below the ephemeral ranges of Linux and macOS, so that no connection or port-0 listener that
 * another process opens in between is given the same one.
 */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < 50; tries += 1) {
    const port = randomInt(20_000, 32_000);
    if (await isFree(port)) return port;
  }
  throw new Error("no free port between 20000 and 31999 on 127.0.0.1");
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  try {
    await once(server.listen(port, "127.0.0.1"), "listening");
  } catch {
    return false;
  }
  await new Promise((resolve) => server.close(resolve));
  return true;
}

function servingPorts(line: string): ProxyPorts | undefined {
  if (!line.includes('"serving"')) return undefined;
  const { addresses } = JSON.parse(line) as {
    addresses?: Partial<Record<keyof ProxyPorts, { port: number }>>;
  };
  const port = (surface: keyof ProxyPorts): number => addresses?.[surface]?.port ?? 0;
  return {
    reverse: port("reverse"),
    forward: port("forward"),
    stats: port("stats"),
    sessions: port("sessions"),
    health: port("health"),
  };
}

async function stop(child: ChildProcess): Promise<number | null> {
  if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
  const ended = once(child, "exit");
  child.kill("SIGTERM");
  await ended;
  return child.exitCode;
}

async function within<T>(ms: number, promise: Promise<T>, what: string): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${ms / 1000} s for ${what}`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}
