/** The Autobahn test suite, whose program `AUTOBAHN` names: its fuzzing client and server, and the peers that it brings. */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { eventually } from "./eventually.ts";
import type { Closable } from "./owner.ts";

const run = promisify(execFile);
const startLimitMs = 60_000;
const runLimitMs = 1_800_000;

/** What came of a case: of its messages, and of its closing handshake. */
export interface Outcome {
  readonly behavior: string;
  readonly behaviorClose: string;
}

/** By the id of the case. */
export type Report = Readonly<Record<string, Outcome>>;

/** Which cases, in patterns of the suite. */
export interface Cases {
  readonly cases: readonly string[];
  readonly except?: readonly string[];
}

/** A peer, and the port that it is reached by. */
export interface Agent {
  readonly name: string;
  readonly port: number;
}

/** The suite beside one port, on which its servers listen. */
export class Autobahn {
  readonly #program: string;
  readonly #directory: string;
  readonly #port: number;

  private constructor(program: string, directory: string, port: number) {
    this.#program = program;
    this.#directory = directory;
    this.#port = port;
  }

  static async at(program: string, port: number): Promise<Autobahn> {
    return new Autobahn(program, await mkdtemp(join(tmpdir(), "autobahn-")), port);
  }

  async close(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true });
  }

  /** The echo server that comes with the suite. */
  echoServer(): Promise<Closable> {
    return this.#serve(["-m", "testeeserver", "-w", urlOf(this.#port)]);
  }

  /** Has the fuzzing client attack a server by way of that port. */
  async attackServer({ name, port }: Agent, { cases, except = [] }: Cases): Promise<Report> {
    const out = join(this.#directory, `server-${name}-${cases.length}`);
    const spec = await this.#spec(`client-of-${name}`, {
      outdir: out,
      servers: [{ agent: name, url: urlOf(port) }],
      cases,
      "exclude-cases": except,
      "exclude-agent-cases": {},
    });
    await this.#run(["-m", "fuzzingclient", "-s", spec]);
    return (await reports(out))[name] ?? {};
  }

  /** Has the fuzzing server attack clients that come by these ports, all at once. */
  async attackClients(agents: readonly Agent[], { cases, except = [] }: Cases) {
    const out = join(this.#directory, `clients-${agents[0]?.name}-${cases.length}`);
    const spec = await this.#spec("server", {
      url: urlOf(this.#port),
      outdir: out,
      cases,
      "exclude-cases": except,
      "exclude-agent-cases": {},
    });
    const server = await this.#serve(["-m", "fuzzingserver", "-s", spec, "-u", "0"]);
    try {
      await Promise.all(
        agents.map(({ name, port }) =>
          this.#run(["-m", "testeeclient", "-w", urlOf(port), "-i", name]),
        ),
      );
      return await reports(out);
    } finally {
      await server.close();
    }
  }

  async #spec(name: string, spec: object): Promise<string> {
    const path = join(this.#directory, `${name}.json`);
    await writeFile(path, JSON.stringify(spec));
    return path;
  }

  async #run(args: readonly string[]): Promise<void> {
    await run(this.#program, args, {
      cwd: this.#directory,
      maxBuffer: 64 * 1024 * 1024,
      timeout: runLimitMs,
    });
  }

  async #serve(args: readonly string[]): Promise<Closable> {
    const server = spawn(this.#program, args, { cwd: this.#directory, stdio: "ignore" });
    await eventually(() => answers(this.#port, server), startLimitMs);
    return {
      close: async () => {
        const ended = once(server, "exit");
        server.kill("SIGKILL");
        await ended;
      },
    };
  }
}

const urlOf = (port: number): string => `ws://127.0.0.1:${port}`;

async function reports(directory: string): Promise<Readonly<Record<string, Report>>> {
  return JSON.parse(await readFile(join(directory, "index.json"), "utf8")) as Record<
    string,
    Report
  >;
}

async function answers(port: number, server: ChildProcess): Promise<boolean> {
  if (server.exitCode !== null) throw new Error(`it ended with ${server.exitCode}`);
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    return true;
  } finally {
    socket.destroy();
  }
}
