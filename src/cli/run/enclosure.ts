/** Where the command of a run lives: with everybody else, or with no way out but the proxy. */
import { existsSync } from "node:fs";
import { type CommandEnding, runCommand } from "../child-process.ts";
import { enclosureProblem, Namespace, type TakeSocket } from "../enforce/namespace.ts";
import type { CommandRoot } from "./standstill.ts";
import { seatbelted } from "../enforce/seatbelt.ts";

/** A command that is to be run. */
export interface EnclosedCommand {
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly passSignals: readonly NodeJS.Signals[];
  readonly proxyPort: number;
  /** Hears of the first process that is the command's, or the last that is not. */
  readonly onStarted: (root: CommandRoot) => void;
  /** Files that the command is not to read, where it has walls. */
  readonly hidden: readonly string[];
  /** Ports whose connections the proxy understands without a client that knows of it. */
  readonly capturedPorts: readonly number[];
}

/** One place for one command. */
export interface Enclosure {
  /** What holds its namespaces, and is no ancestor of the command. */
  readonly agentPid: number;
  /** Never rejects. `take` gets the connections that only this place can accept. */
  run(command: EnclosedCommand, take: TakeSocket): Promise<CommandEnding>;
  close(): void;
}

/** What a cooperative command lives in. */
export const open: Enclosure = {
  // An entry for node would otherwise admit everything that this process, which is node, starts.
  agentPid: process.pid,
  run: ({ onStarted, command, env, passSignals }) =>
    runCommand({
      command,
      env,
      passSignals,
      onStarted: (pid) => onStarted({ pid, isIncluded: true }),
    }),
  close: () => undefined,
};

const sandboxTool = "/usr/bin/sandbox-exec";

/** The walls of this system, or why there are none: a run that is to be enforced does not begin without. */
export async function enclosure(platform: NodeJS.Platform): Promise<Enclosure | string> {
  if (platform === "darwin") {
    return existsSync(sandboxTool) ? seatbelt : `${sandboxTool} is not there`;
  }
  if (platform !== "linux") return "it is done on Linux, and on macOS as well as can be";
  const problem = enclosureProblem();
  if (problem !== undefined) return problem;
  const namespace = await Namespace.make();
  return {
    agentPid: namespace.pid,
    run: ({ passSignals: signals, onStarted, ...begin }, take) => {
      // The relay inside goes on: it hands connections over, and reads nothing from the terminal.
      onStarted({ pid: namespace.pid, isIncluded: false });
      return namespace.run({ ...begin, signals }, take);
    },
    close: () => namespace.close(),
  };
}

const seatbelt: Enclosure = {
  agentPid: process.pid,
  run: ({ command, proxyPort, ...rest }) =>
    open.run({ ...rest, proxyPort, command: seatbelted(command, proxyPort) }, () => undefined),
  close: () => undefined,
};
