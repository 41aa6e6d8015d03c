/** A command that is run through a proxy of the doctor's own, with the environment that `env` prints. */
import { join } from "node:path";
import type { LoadedConfig } from "../../config/load.ts";
import { openAuthority } from "../../app/bridge.ts";
import { type CommandEnding, runCommand } from "../child-process.ts";
import { clientEnvironment, type TrustFiles } from "../client-environment.ts";
import { type Finding, fail, pass } from "./report.ts";
import { ObservedTraffic } from "./observed-traffic.ts";
import { OwnInstance } from "../own-instance.ts";
import { forProbing, writeProbeFile } from "../own-file.ts";
import { writeTrustBundle } from "../../app/trust/bundle.ts";
import type { Config } from "../../config/presets.ts";

/** A command to run through the proxy; empty for none. */
export interface TriedCommand {
  readonly command: readonly string[];
  /** How long it may run. */
  readonly timeoutMs: number;
  /** Whether standard output is for the report alone: the command's goes to standard error. */
  readonly json: boolean;
}

/** Says how the command ended and what it reached. */
export async function probeCommand(
  loaded: LoadedConfig,
  command: TriedCommand,
  directory: string,
): Promise<Finding[]> {
  const config = forProbing(loaded, directory);
  const traffic = new ObservedTraffic();
  const probe = await writeProbeFile(directory, "command", config);
  const instance = await OwnInstance.start(probe, (line) => traffic.hear(line));
  let ending: CommandEnding;
  try {
    const { forward } = instance.addresses;
    if (forward === undefined)
      return [fail("the file opens no forward proxy", "add the role forward to listener.roles")];
    const trust = await trustFiles(config, directory);
    ending = await runCommand({
      command: command.command,
      env: { ...process.env, ...Object.fromEntries(clientEnvironment(forward, trust)) },
      timeoutMs: command.timeoutMs,
      isQuiet: command.json,
      passSignals: ["SIGTERM"],
    });
  } finally {
    // The command may have left the cursor behind its last word.
    if (!command.json) process.stdout.write("\n");
    // The last flows end with the process that made them; they are logged when the instance is closed.
    await instance.close();
  }
  return [...traffic.findings(), wordEnding(ending, command)];
}

async function trustFiles(config: Config, directory: string): Promise<TrustFiles | undefined> {
  if (config.tls_bridge.mode !== "enabled") return undefined;
  const { authority, caFile } = await openAuthority(config);
  const bundleFile = join(directory, "ca-bundle.crt");
  const { javaStoreFile } = await writeTrustBundle(bundleFile, authority.caPem);
  return { caFile, bundleFile, javaStoreFile };
}

function wordEnding(ending: CommandEnding, { command, timeoutMs }: TriedCommand): Finding {
  // Its arguments may hold secrets.
  const name = command[0] ?? "";
  switch (ending.kind) {
    case "exited":
      if (ending.code === 0) return pass(`${name} exited with 0`);
      return fail(`${name} exited with ${ending.code}`, "its own output says why");
    case "killed":
      return fail(`${name} was ended by ${ending.signal}`, "its own output says why");
    case "timed-out":
      return fail(
        `${name} was still running after ${timeoutMs / 1_000} s and was ended`,
        "--timeout sets another limit",
      );
    case "not-started":
      return fail(`${name} cannot be run: ${ending.code}`, "name a program after --");
  }
}
