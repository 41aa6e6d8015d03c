/** Everything that runs in the demo, started in order and stopped in reverse. */
import { fileURLToPath } from "node:url";
import { type AuthorizationServer, startAuthorizationServer } from "./authorization-server.ts";
import {
  freePort,
  type ProxyPorts,
  type ProxyProcess,
  startAgent,
  startProxy,
} from "./child-processes.ts";
import { startTargetApi, type TargetApi } from "./target-api.ts";

/** Handles on all of it. */
export interface World {
  readonly idp: AuthorizationServer;
  readonly tickets: TargetApi;
  readonly open: TargetApi;
  readonly proxy: ProxyProcess;
  readonly ports: ProxyPorts;
  readonly agentPort: number;
  /** Stops everything and resolves with the proxy's exit code. */
  stop(): Promise<number | null>;
}

const config = fileURLToPath(new URL("../../config/demo.yaml", import.meta.url));

/** Starts the authorization server, the services, the proxy and the agent. What was started before a fault is stopped. */
export async function startWorld(): Promise<World> {
  const stops: (() => Promise<unknown>)[] = [];
  const stopAll = async (): Promise<void> => {
    for (const stop of stops.reverse()) await stop();
  };
  try {
    const idp = await startAuthorizationServer();
    stops.push(() => idp.close());
    const { issuer, clientSecret } = idp;
    const tickets = await startTargetApi({ issuer, audience: "tickets-api" });
    stops.push(() => tickets.close());
    const open = await startTargetApi({ issuer });
    stops.push(() => open.close());
    const agentPort = await freePort();
    const proxy = await startProxy(config, environment(issuer, clientSecret, agentPort));
    let exitCode: number | null = null;
    stops.push(async () => {
      exitCode = await proxy.stop();
    });
    const agent = await startAgent(agentPort, proxy.ports.forward, {
      tickets: `http://tickets.demo:${tickets.port}/`,
      public: `http://public.demo:${open.port}/`,
      billing: `http://billing.demo:${tickets.port}/`,
      elsewhere: "http://elsewhere.demo/",
      metadata: "http://169.254.169.254/latest/meta-data/",
      rebound: "http://rebound.demo/latest/meta-data/",
    });
    stops.push(() => agent.stop());
    const stop = async (): Promise<number | null> => {
      await stopAll();
      return exitCode;
    };
    return { idp, tickets, open, proxy, ports: proxy.ports, agentPort, stop };
  } catch (error) {
    await stopAll();
    throw error;
  }
}

/** Port 0 is any free one; the proxy's log says which it got. */
function environment(issuer: string, secret: string, agentPort: number): Record<string, string> {
  return {
    LOG_LEVEL: "info",
    DEMO_ISSUER: issuer,
    DEMO_CLIENT_SECRET: secret,
    DEMO_AGENT_PORT: String(agentPort),
    DEMO_REVERSE_PORT: "0",
    DEMO_FORWARD_PORT: "0",
    DEMO_SESSION_PORT: "0",
    DEMO_HEALTH_PORT: "0",
    DEMO_STATS_PORT: "0",
  };
}
