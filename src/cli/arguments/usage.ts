/** The text of `--help`, whole and about one command. */
import { policyUsage } from "./policy-command-line.ts";
import { recordUsage } from "./record-arguments.ts";

const usage = `Usage:
  authbridge-proxy --config FILE [--lenient]        run the proxy
  authbridge-proxy run [--config FILE | --policy FILE] [--learn FILE] -- COMMAND …
                                                    run COMMAND behind a proxy of its own, and tell what it reached
  authbridge-proxy init [--local | --sidecar | --gateway] [--config FILE]
                                                    write a commented starter file (default authbridge.yaml)
  authbridge-proxy check --config FILE [--lenient]  validate the file and print the effective configuration
  authbridge-proxy ca --config FILE [--fingerprint] print the certificate of the TLS bridge that clients have to trust
  authbridge-proxy env --config FILE [options]      print the environment that makes clients use and trust the proxy
  authbridge-proxy doctor --config FILE [-- COMMAND …]
                                                    check file, CA, listeners, key sets, token endpoints and the
                                                    bridge, and run COMMAND through the proxy to see what it reaches
  authbridge-proxy doctor --config FILE --token FILE
                                                    say why the inbound pipeline refuses this token, check by check
${policyUsage.commands}${recordUsage.commands}  authbridge-proxy schema                           print the JSON Schema of the file
  authbridge-proxy --demo [--ca-dir DIR]            a forward proxy on 127.0.0.1:47600 that opens TLS and shows traffic
  authbridge-proxy --version

Options:
  --config FILE       the configuration file
  --lenient           unknown keys are warnings, for files written for the Go authbridge-proxy
  --probe[=never]     check: also ask the readiness endpoints of upstream_proxy; --probe=never: a start does not ask
  --fingerprint       ca: subject, SHA-256 fingerprint and expiry instead of the certificate
  --format FORMAT     env: shell (default), dotenv or kubernetes
  --proxy URL         env: the proxy as clients reach it, such as http://127.0.0.1:8081 (default: from the file)
  --ca-file PATH      env: where clients find ca.crt (default: in tls_bridge.ca_dir); the bundle is expected beside it
  --bundle-file PATH  env: where to write the system's roots with the CA (default: ca-bundle.crt in tls_bridge.ca_dir)
  --policy FILE       run: refuse what this policy file (OpenShell format) does not allow
  --learn FILE        run: write the smallest policy that lets through what COMMAND tried to reach
  --token FILE        doctor: a file with a token of a caller, which is not printed
  --timeout DURATION  doctor: how long COMMAND may run (default 60s)
${policyUsage.options}${recordUsage.options}  --ca-dir DIR        with --demo: directory of the CA and of demo.yaml (default ./cortex-ca)

Exit codes: 0 success, 1 failure while running or a failed check, 2 bad usage or bad configuration.
run -- COMMAND exits as COMMAND does, with 128 and the number of the signal that ended it, with 127 when it is not there.
Environment: LOG_LEVEL=debug|info|warn|error (default info).
`;

const [commands = "", options = ""] = usage.split("\nOptions:\n");

/** What `--help` says about the command of these arguments; without a command everything. */
export function helpFor(argv: readonly string[]): string {
  return commandOf(argv) === undefined ? usage : usageFor(argv);
}

/** What is shown with a mistake in these arguments: the lines about their command, else the list of commands. */
export function usageFor(argv: readonly string[]): string {
  const command = commandOf(argv);
  const own = entriesOf(commands).filter((entry) => wordAfterProgram(entry) === command);
  if (command === undefined || own.length === 0) return commands;
  const takesFile = own.join("").includes("--config");
  const known = entriesOf(options.split("\n\n")[0] ?? "").filter((entry) => {
    const about = commandsNamedBy(entry);
    if (about.length > 0) return about.includes(command);
    return takesFile && !(command === "init" && entry.includes("--lenient"));
  });
  return `Usage:\n${own.join("")}${known.length === 0 ? "" : `\nOptions:\n${known.join("")}`}`;
}

function commandOf([first]: readonly string[]): string | undefined {
  return first === undefined || first.startsWith("-") ? undefined : first;
}

/** An entry begins two spaces in, and goes on while lines are further in. */
function entriesOf(text: string): readonly string[] {
  return (text.match(/^ {2}\S.*(?:\n {3,}.*)*/gm) ?? []).map((entry) => `${entry}\n`);
}

function wordAfterProgram(entry: string): string | undefined {
  return /^ {2}authbridge-proxy (\S+)/.exec(entry)?.[1];
}

/** The commands that an option says it is for, such as "explain, policy:". */
function commandsNamedBy(entry: string): readonly string[] {
  if (entry.includes("with --demo")) return ["--demo"];
  const named = /\s((?:[a-z]+(?: suggest)?(?:, )?)+):/.exec(entry)?.[1];
  return named?.split(/, | /) ?? [];
}
