/** `--demo`: writes a configuration and a CA, says how to use them, and serves. */
import { invocation } from "./invocation.ts";
import { mkdir } from "node:fs/promises";
import { join, resolve } from "node:path";
import { messageOf } from "../errors.ts";
import { builtinPlugins } from "../plugins/index.ts";
import { CertificateAuthoritySource } from "../tlsbridge/authority-source.ts";
import { writeAtomically } from "../files/atomic-file.ts";
import { refuseCommand } from "./config-file.ts";
import { demoConfig, demoPorts } from "./demo-config.ts";
import { run } from "./serve.ts";

/** Resolves with the exit code once the process has shut down. */
export async function demo({ caDir }: { readonly caDir: string }): Promise<number> {
  const directory = resolve(caDir);
  const file = join(directory, "demo.yaml");
  const { text, missing } = demoConfig(directory, builtinPlugins);
  try {
    await mkdir(directory, { recursive: true });
    await writeAtomically(file, text, 0o644);
  } catch (error) {
    return refuseCommand(new Error(`${file} cannot be written: ${messageOf(error)}`));
  }
  try {
    // Before the words below are printed, so that the file they name is there.
    await CertificateAuthoritySource.open({ directory, generate: true });
  } catch (error) {
    return refuseCommand(error);
  }
  process.stdout.write(howTo(directory, file, missing));
  return run({ file, lenient: false });
}

function howTo(directory: string, file: string, missing: readonly string[]): string {
  const proxy = `http://127.0.0.1:${demoPorts.forward}`;
  const lines = [
    `authbridge-proxy demo: forward proxy on ${proxy}, configuration ${file}`,
    "",
    "Run your agent through it:",
    `  HTTPS_PROXY=${proxy} HTTP_PROXY=${proxy} NODE_USE_ENV_PROXY=1 NODE_EXTRA_CA_CERTS=${quote(join(directory, "ca.crt"))} your-agent`,
    "or, for every kind of client:",
    `  eval "$(${invocation()} env --config ${quote(file)})"`,
    "",
    "See what it sends:",
    `  http://127.0.0.1:${demoPorts.sessions}/ in a browser, or`,
    `  curl -N http://127.0.0.1:${demoPorts.sessions}/v1/events`,
    `  curl http://127.0.0.1:${demoPorts.stats}/stats`,
    ...(missing.length === 0
      ? []
      : ["", `Not in this version and left out of the pipeline: ${missing.join(", ")}`]),
    "",
  ];
  return `${lines.join("\n")}\n`;
}

function quote(path: string): string {
  return /^[\w./@%+=:,-]+$/.test(path) ? path : `'${path.replaceAll("'", "'\\''")}'`;
}
