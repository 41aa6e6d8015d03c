/** Whether the listeners of a file could be bound, or a proxy already serves them. */
import { parseJsonObject } from "../../http/json-access.ts";
import http from "node:http";
import net from "node:net";
import type { LoadedConfig } from "../../config/load.ts";
import {
  type SurfaceAddress,
  surfaceAddresses,
  surfaceKey,
  surfaces,
} from "../../config/surfaces.ts";
import { parseListenAddress } from "../../config/listen-address.ts";
import type { Config } from "../../config/presets.ts";
import { type Finding, fail, pass } from "./report.ts";
import { reachableHost } from "../proxy-address.ts";
import { bindAddressOf } from "../../app/listen-options.ts";

/** What was found out about all listeners. */
export interface ListenerState {
  /** True when a running authbridge-proxy serves the addresses of this file. */
  readonly isRunning: boolean;
  readonly findings: readonly Finding[];
}

type Binding =
  | { readonly state: "free" }
  | { readonly state: "taken" }
  | { readonly state: "impossible"; readonly code: string };

const responseLimitMs = 2_000;
const maxResponseBytes = 262_144;

/** Binds each address for a moment, and asks the one that serves the statistics who it is. */
export async function probeListeners(
  loaded: LoadedConfig,
  signal: AbortSignal,
): Promise<ListenerState> {
  const { config } = loaded;
  const running = await runningDigest(config.stats.address, signal);
  const findings: Finding[] = [];
  if (running !== undefined) findings.push(runningFinding(running === loaded.sha256, config));
  for (const surface of surfaceAddresses(config)) {
    const binding = await tryBinding(surface.address);
    findings.push(wordBinding(surface, binding, running !== undefined));
  }
  return { isRunning: running !== undefined, findings };
}

/** One GET on an operator surface of the machine itself; undefined without an HTTP response. */
export function askOperator(
  address: string,
  path: string,
  signal: AbortSignal,
): Promise<{ readonly status: number; readonly body: string } | undefined> {
  const { host, port } = bindAddressOf(address);
  return new Promise((resolve) => {
    const request = http.get(
      { host: reachableHost(host), port, path, agent: false, signal, timeout: responseLimitMs },
      (response) => {
        let body = "";
        response.setEncoding("utf8");
        response.on("data", (chunk: string) => {
          body += chunk;
          if (body.length > maxResponseBytes) request.destroy();
        });
        response.on("error", () => resolve(undefined));
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
      },
    );
    request.on("timeout", () => request.destroy());
    request.on("error", () => resolve(undefined));
    request.on("close", () => resolve(undefined));
  });
}

/** Digest of the file that the proxy on this statistics address serves; undefined when none of ours is there. */
async function runningDigest(address: string, signal: AbortSignal): Promise<string | undefined> {
  if (parseListenAddress(address)?.port === 0) return undefined;
  const response = await askOperator(address, "/reload/status", signal);
  if (response?.status !== 200) return undefined;
  const digest = parseJsonObject(response.body)?.["active_config_sha256"];
  return typeof digest === "string" ? digest : undefined;
}

function runningFinding(isSameFile: boolean, config: Config): Finding {
  if (isSameFile) return pass(`a proxy is running with this very file (${config.stats.address})`);
  return fail(
    `a proxy is running (${config.stats.address}) with other contents than this file`,
    "name the file that it was started with, wait for its reload, or look at its /reload/status",
  );
}

function tryBinding(address: string): Promise<Binding> {
  const server = net.createServer((socket) => socket.destroy());
  return new Promise((resolve) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const code = error.code ?? error.message;
      resolve(code === "EADDRINUSE" ? { state: "taken" } : { state: "impossible", code });
    });
    server.listen({ ...bindAddressOf(address), exclusive: true }, () => {
      server.close(() => resolve({ state: "free" }));
    });
  });
}

const bindRemedies: Readonly<Record<string, string>> = {
  EACCES: "ports below 1024 need a privilege: use a higher one",
  EADDRNOTAVAIL: "this machine does not have that address: name one of its own",
  ENOTFOUND: "the name does not resolve: write an address",
};

function wordBinding(
  { name, address }: SurfaceAddress,
  binding: Binding,
  isRunning: boolean,
): Finding {
  const key = surfaceKey(name);
  const what = `${key} ${address}`;
  switch (binding.state) {
    case "impossible":
      return fail(
        `${what} cannot be bound: ${binding.code}`,
        bindRemedies[binding.code] ?? `change ${key}`,
      );
    case "taken":
      return isRunning
        ? pass(`${what} is served`)
        : fail(`${what} is taken by another program`, `stop that program or change ${key}`);
    case "free":
      return isRunning && !("optional" in surfaces[name])
        ? fail(`${what} is not served by the running proxy`, "restart it with this file")
        : pass(`${what} ${isRunning ? "is not bound" : "is free"}`);
  }
}
