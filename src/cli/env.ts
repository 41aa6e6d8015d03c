/** `env`: the environment that makes clients use the proxy and trust its authority. */
import { basename, dirname, join, resolve } from "node:path";
import type { Config } from "../config/presets.ts";
import { messageOf, ProxyError } from "../errors.ts";
import { authorityObjection, openAuthority } from "../app/bridge.ts";
import { clientEnvironment, type TrustFiles } from "./client-environment.ts";
import { commandFile, type FileCommand, refuseCommand } from "./config-file.ts";
import {
  type EnvironmentFormat,
  formatEnvironment,
  UnwritableValue,
} from "./environment-format.ts";
import { parseProxyOption, proxyOfFile } from "./proxy-address.ts";
import { javaStoreOf, writeTrustBundle } from "../app/trust/bundle.ts";

const bundleName = "ca-bundle.crt";

interface EnvCommand extends FileCommand {
  readonly format: EnvironmentFormat;
  /** The proxy as clients reach it; from the file when absent. */
  readonly proxy?: string;
  /** Where clients find ca.crt; in `ca_dir` when absent. */
  readonly caFile?: string;
  /** Where the merged bundle is written; in `ca_dir` when absent. */
  readonly bundleFile?: string;
}

/** Prints it, notes for people to stderr, and resolves with the exit code. */
export async function printEnvironment(command: EnvCommand): Promise<number> {
  const loaded = await commandFile(command);
  if (loaded === undefined) return 2;
  const { config } = loaded;
  const proxy = command.proxy === undefined ? proxyOfFile(config) : parseProxyOption(command.proxy);
  if (typeof proxy === "string") return refuseCommand(proxy);
  try {
    const trust = await trustFilesFor(command, config);
    if (typeof trust === "string") return refuseCommand(trust);
    const variables = clientEnvironment(proxy, trust);
    const text = formatEnvironment(variables, command.format);
    if (!variables.some(([name]) => name === "JAVA_TOOL_OPTIONS"))
      note("JAVA_TOOL_OPTIONS is left out: the JVM has no way to write this path");
    process.stdout.write(text);
    return 0;
  } catch (error) {
    return refuseCommand(error instanceof UnwritableValue ? error.message : error);
  }
}

/** Writes the bundle and says where clients find everything; undefined where the bridge is off. */
async function trustFilesFor(
  command: EnvCommand,
  config: Config,
): Promise<TrustFiles | string | undefined> {
  if (config.tls_bridge.mode !== "enabled") {
    if (command.caFile !== undefined || command.bundleFile !== undefined)
      return "the TLS bridge is off: --ca-file and --bundle-file have nothing to name";
    note("the TLS bridge is off: clients trust what they always did, only the proxy is set");
    return undefined;
  }
  const objection = authorityObjection(config);
  if (objection !== undefined) return objection;
  const { authority, directory, caFile: ownCaFile } = await openAuthority(config);
  const caFile = command.caFile === undefined ? ownCaFile : resolve(command.caFile);
  const written = resolve(command.bundleFile ?? join(directory, bundleName));
  await writeBundle(written, authority.caPem);
  // Clients that see ca.crt under another path see the directory of the CA there, and the bundle in it.
  const bundleFile =
    command.caFile === undefined || command.bundleFile !== undefined
      ? written
      : join(dirname(caFile), basename(written));
  return { caFile, bundleFile, javaStoreFile: javaStoreOf(bundleFile) };
}

async function writeBundle(path: string, caPem: string): Promise<void> {
  try {
    const { certificates, javaStoreFile } = await writeTrustBundle(path, caPem);
    note(`wrote ${certificates} certificates to ${path} and ${javaStoreFile}`);
  } catch (error) {
    if (error instanceof ProxyError) throw error;
    throw new Error(
      `${path} cannot be written: ${messageOf(error)}; name another place with --bundle-file`,
      { cause: error },
    );
  }
}

function note(text: string): void {
  process.stderr.write(`# ${text}\n`);
}
