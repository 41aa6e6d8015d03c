/** Everything that is measured: how each proxy is started, and what it can take part in. */
import { appendFileSync, chmodSync, existsSync, readdirSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";

import { Child, onPath } from "./child.ts";
import { freePorts } from "./stage.ts";
import type { Stage } from "./stage.ts";

const HERE = import.meta.dirname;
const ROOT = join(HERE, "..");
const READY_TIMEOUT_MS = 15_000;
const POLL_MS = 2;

/** Options for the Node of every measured process, such as `--cpu-prof`. */
const NODE_OPTIONS = (process.env["BENCH_NODE_OPTIONS"] ?? "").split(" ").filter(Boolean);

/** The job a proxy is started for. */
export type Role =
  | "forward"
  | "forward-sessions"
  | "forward-exchange"
  | "forward-policy"
  | "forward-bridge"
  | "reverse"
  | "reverse-jwt"
  | "full";

/** A proxy that accepts connections. */
export interface Running {
  readonly child: Child;
  readonly port: number;
  /** Port of a plain TCP relay to the origin, for a peer that takes no CONNECT. */
  readonly rawPort: number | undefined;
  /** True where it replaces the caller's token, so that the origin insists on the new one. */
  readonly exchanges: boolean;
  stop(): Promise<void>;
}

export interface Contestant {
  readonly name: string;
  readonly note: string;
  /** Why it cannot run here; absent where it can. */
  missing(): string | undefined;
  start(stage: Stage, role: Role): Promise<Running>;
}

async function accepts(port: number, child: Child): Promise<void> {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  while (performance.now() < deadline) {
    if (child.exited !== undefined) {
      throw new Error(`${child.exited}: ${child.stderr.slice(-400)}`);
    }
    const open = await new Promise<boolean>((resolve) => {
      const socket = connect(port, "127.0.0.1");
      socket.on("connect", () => {
        socket.destroy();
        resolve(true);
      });
      socket.on("error", () => resolve(false));
    });
    if (open) {
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  await child.stop();
  throw new Error(`no listener on port ${port}: ${child.stderr.slice(-400)}`);
}

async function ready(port: number, child: Child): Promise<void> {
  const deadline = performance.now() + READY_TIMEOUT_MS;
  let last = "";
  while (performance.now() < deadline) {
    if (child.exited !== undefined) {
      throw new Error(`${child.exited}: ${child.stderr.slice(-400)}`);
    }
    try {
      const answer = await fetch(`http://127.0.0.1:${port}/readyz`);
      last = `${answer.status} ${await answer.text()}`;
      if (answer.status === 200) {
        return;
      }
    } catch {
      // Not listening yet.
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS * 5));
  }
  await child.stop();
  throw new Error(`never ready (${last}): ${child.stderr.slice(-400)}`);
}

function running(child: Child, port: number, rawPort?: number, after?: () => void): Running {
  return {
    child,
    port,
    rawPort,
    exchanges: false,
    stop: async () => {
      await child.stop();
      after?.();
    },
  };
}

const CONFIG_OF: Readonly<Record<Role, string>> = {
  forward: "forward.yaml",
  "forward-sessions": "forward-sessions.yaml",
  "forward-exchange": "forward-exchange.yaml",
  "forward-policy": "forward-policy.yaml",
  "forward-bridge": "forward-bridge.yaml",
  reverse: "reverse.yaml",
  "reverse-jwt": "reverse-jwt.yaml",
  full: "full.yaml",
};

/** How a program that takes our configuration file is started. */
interface Command {
  readonly program: string;
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
  /** Where it has no key for it. */
  readonly healthPort?: number;
  /** Lines at the end of the file. */
  readonly keys?: string;
}

/** Starts a proxy from its real command line; the start-up row waits for listening only. */
async function startConfigured(stage: Stage, command: Command, role: Role): Promise<Running> {
  const [forward = 0, transparent = 0, reverse = 0, session = 0, health = 0, stats = 0] =
    await freePorts(6);
  const place = stage.place("authbridge");
  const file = stage.configure(CONFIG_OF[role], place, {
    FORWARD_PORT: forward,
    TRANSPARENT_PORT: transparent,
    REVERSE_PORT: reverse,
    SESSION_PORT: session,
    HEALTH_PORT: health,
    STATS_PORT: stats,
    ORIGIN_PORT: stage.originHttp,
    TLS_PORT: stage.originTls,
    ORIGIN_CA: stage.originCa,
    IDP_PORT: stage.idp,
    DIR: place,
  });
  appendFileSync(file, command.keys ?? "");
  const argv = [...command.argv, "--config", file];
  const child = new Child("proxy", join(place, "stderr"), command.program, argv, command.env);
  const port = role.startsWith("reverse") ? reverse : forward;
  await accepts(port, child);
  if (role !== "full") {
    await ready(command.healthPort ?? health, child);
  }
  return {
    ...running(child, port, undefined, () => rmSync(place, { recursive: true, force: true })),
    exchanges: role === "forward-exchange",
  };
}

function authbridge(
  name: string,
  note: string,
  roleOf: (role: Role) => Role = (role) => role,
  {
    main = join(ROOT, "dist", "main.js"),
    flags = [],
    keys = "",
  }: { readonly main?: string; readonly flags?: readonly string[]; readonly keys?: string } = {},
): Contestant {
  return {
    name,
    note,
    missing: () => (existsSync(main) ? undefined : `${main} is missing: npm run build`),
    start: async (stage, role) => {
      const command = { program: process.execPath, argv: [...NODE_OPTIONS, ...flags, main], keys };
      return await startConfigured(stage, command, roleOf(role));
    },
  };
}

/** Another checkout of this program, built, to be measured beside this one in every case. */
export function otherBuild(directory: string): Contestant {
  return authbridge("other", `the build in ${directory}`, undefined, {
    main: join(directory, "dist", "main.js"),
  });
}

/** This build with other options of Node, such as those of the heap. */
export function withFlags(flags: string): Contestant {
  return authbridge(flags, "this program with these options", undefined, {
    flags: flags.split(" ").filter(Boolean),
  });
}

/** This program without a build, with options of Node. */
export function fromSources(flags: readonly string[]): Contestant {
  return authbridge("sources", "this program from its sources", undefined, {
    main: join(ROOT, "src", "main.ts"),
    flags,
  });
}

/** The Go program, which takes the same file. Its core is the one that all proxies have, and its health port is fixed. */
export function goProgram(path: string): Contestant {
  return {
    name: "go",
    note: "the Go AuthBridge",
    missing: () => (existsSync(path) ? undefined : `${path} is missing`),
    start: async (stage, role) =>
      await startConfigured(
        stage,
        { program: path, argv: [], env: { GOMAXPROCS: "1" }, healthPort: 9091 },
        role,
      ),
  };
}

/** A peer that is a script in bench/peers, with or without a package from bench/package.json. */
function script(name: string, note: string, packageName?: string): Contestant {
  return {
    name,
    note,
    missing: () =>
      packageName === undefined || existsSync(join(HERE, "node_modules", packageName))
        ? undefined
        : "not installed: npm ci in bench",
    start: async (stage, role) => {
      const place = stage.place(name);
      const kind = role.startsWith("reverse") ? "reverse" : "forward";
      const child = new Child(
        "proxy",
        join(place, "stderr"),
        process.execPath,
        [
          ...NODE_OPTIONS,
          join(HERE, "peers", `${name}.ts`),
          String(stage.originHttp),
          String(stage.originRaw),
          kind,
        ],
        role === "forward-bridge" ? bridging(stage) : {},
      );
      const { proxy = 0 } = await child.ports().catch(async (error: unknown) => {
        await child.stop();
        throw error;
      });
      return running(child, proxy);
    },
  };
}

/** A peer that opens TLS trusts the origin's authority, or nobody's. */
function bridging(stage: Stage): Readonly<Record<string, string>> {
  return {
    BENCH_TLS: "1",
    NODE_EXTRA_CA_CERTS: stage.originCa,
    NODE_TLS_REJECT_UNAUTHORIZED: "0",
  };
}

function program(
  name: string,
  note: string,
  file: string,
  argv: (configuration: string) => readonly string[],
  options: { readonly hasRelay: boolean; readonly cleaner?: () => () => void },
): Contestant {
  return {
    name,
    note,
    missing: () => (onPath(name) ? undefined : "not on PATH"),
    start: async (stage, _role) => {
      const place = stage.place(name);
      // squid drops to its own user and must be able to write here.
      chmodSync(stage.directory, 0o755);
      chmodSync(place, 0o777);
      const [port = 0, relay = 0] = await freePorts(2);
      const configuration = stage.configure(file, place, {
        PORT: port,
        TCP_PORT: relay,
        ORIGIN_PORT: stage.originHttp,
        RAW_PORT: stage.originRaw,
        DIR: place,
      });
      const after = options.cleaner?.();
      const child = new Child("proxy", join(place, "stderr"), name, argv(configuration));
      await accepts(port, child);
      return running(child, port, options.hasRelay ? relay : undefined, after);
    },
  };
}

function squidSegments(): readonly string[] {
  const all = existsSync("/dev/shm") ? readdirSync("/dev/shm") : [];
  return all.filter((name) => name.startsWith("squid-"));
}

/** squid leaves its shared memory behind: removes what came since this call, and nothing older. */
function squidCleaner(): () => void {
  const older = new Set(squidSegments());
  return () => {
    for (const name of squidSegments()) {
      if (!older.has(name)) {
        rmSync(join("/dev/shm", name), { force: true });
      }
    }
  };
}

/** Node itself: a listener and nothing else, for the start-up row. */
const BARE_NODE: Contestant = {
  name: "bare-node",
  note: "a net server, no imports",
  missing: () => undefined,
  start: async (stage) => {
    const [port = 0] = await freePorts(1);
    const child = new Child("proxy", join(stage.place("bare"), "stderr"), process.execPath, [
      "--eval",
      `require("node:net").createServer().listen(${port}, "127.0.0.1")`,
    ]);
    await accepts(port, child);
    return running(child, port);
  },
};

export const CONTESTANTS: readonly Contestant[] = [
  authbridge("authbridge", "this program, every check, log and metrics on"),
  authbridge("authbridge-sessions", "the same with session events", (role) =>
    role === "forward" ? "forward-sessions" : role,
  ),
  authbridge("authbridge-2", "the same with workers: 2", undefined, { keys: "\nworkers: 2\n" }),
  authbridge("authbridge-plain", "the same without the plugin", (role) =>
    role === "reverse-jwt" ? "reverse" : "forward",
  ),
  BARE_NODE,
  script("raw", "bare sockets, no checks: the limit"),
  script("undici-bare", "node:http + undici dispatch, nothing else"),
  script("connect-pipe", "node connect + pipe"),
  script("http-proxy-3", "with a keep-alive agent"),
  script("proxy-chain", "npm", "proxy-chain"),
  script("mockttp", "npm", "mockttp"),
  script("http-mitm-proxy", "npm", "http-mitm-proxy"),
  program("squid", "no cache, no log", "squid.conf", (file) => ["-N", "-f", file], {
    hasRelay: false,
    cleaner: squidCleaner,
  }),
  program("haproxy", "fixed backend, 1 thread", "haproxy.cfg", (file) => ["-db", "-f", file], {
    hasRelay: true,
  }),
  program("nginx", "fixed backend, 1 process", "nginx.conf", (file) => ["-c", file], {
    hasRelay: false,
  }),
];
