/** Every command: its name, what it takes, what the help says of it, and the module that does it, loaded when it is asked for. */
import { auditRows } from "./audit-rows.ts";
import { approveRow, sessionApiUrl } from "./approve-row.ts";
import { type Command, command } from "./command.ts";
import { shellCommands } from "./shell-commands.ts";
import * as takes from "./parameter.ts";
import { reviewFlag, runRow } from "./run-row.ts";

const config = takes.text("--config FILE  the configuration file");
const lenient = takes.flag(
  "--lenient  unknown keys are warnings, for files written for the Go authbridge-proxy",
);
const file = { file: takes.required(config, "--config is required"), lenient };
const probe = takes.choice(
  "--probe[=never]  also ask the readiness endpoints of upstream_proxy; --probe=never: a start does not ask",
  ["always", "never"],
);
const json = takes.flag("--json  JSON instead of text");

/** The places for which `init` has a starter file. */
export const starters = ["local", "sidecar", "gateway"] as const;

/** By the kind that {@link parseCommand} gives. */
export const commands = {
  run: command({
    title: "a plain start",
    usage: { "--config FILE [--lenient]": "run the proxy" },
    parameters: {
      ...file,
      file: takes.required(
        config,
        "--config is required (or use --demo for the local demo, or run -- COMMAND)",
      ),
      probe,
    },
    load: async () => (await import("../serve.ts")).run,
  }),
  "run-command": runRow,
  init: command({
    usage: {
      "init [--local | --sidecar | --gateway] [--config FILE]":
        "write a commented starter file (default authbridge.yaml)",
    },
    parameters: {
      starter: takes.flags(starters, "where it is for (default --local)"),
      file: takes.byDefault(config, "authbridge.yaml"),
    },
    load: async () => (await import("../init.ts")).writeStarter,
  }),
  check: command({
    usage: {
      "check --config FILE [--lenient] [--json]":
        "validate the file and print the effective configuration",
    },
    parameters: { ...file, probe, json },
    load: async () => (await import("../check.ts")).check,
  }),
  ca: command({
    usage: {
      "ca --config FILE [--fingerprint]":
        "print the certificate of the TLS bridge that clients have to trust",
    },
    parameters: {
      ...file,
      fingerprint: takes.flag(
        "--fingerprint  subject, SHA-256 fingerprint and expiry instead of the certificate",
      ),
    },
    load: async () => (await import("../ca.ts")).printCa,
  }),
  env: command({
    usage: {
      "env --config FILE [options]":
        "print the environment that makes clients use and trust the proxy",
    },
    parameters: {
      ...file,
      format: takes.byDefault(
        takes.choice("--format FORMAT  shell (default), dotenv or kubernetes", [
          "shell",
          "dotenv",
          "kubernetes",
        ]),
        "shell",
      ),
      proxy: takes.text(
        "--proxy URL  the proxy as clients reach it, such as http://127.0.0.1:8081 (default: from the file)",
      ),
      caFile: takes.text(
        "--ca-file PATH  where clients find ca.crt (default: in tls_bridge.ca_dir); the bundle is expected beside it",
      ),
      bundleFile: takes.text(
        "--bundle-file PATH  where to write the system's roots with the CA (default: ca-bundle.crt in tls_bridge.ca_dir)",
      ),
    },
    load: async () => (await import("../env.ts")).printEnvironment,
  }),
  doctor: command({
    usage: {
      "doctor --config FILE [--json] [-- COMMAND …]":
        "check file, CA, listeners, key sets, token endpoints and the\nbridge, and run COMMAND through the proxy to see what it reaches",
      "doctor --config FILE --token FILE [--json]":
        "say why the inbound pipeline refuses this token, check by check",
    },
    parameters: {
      ...file,
      tokenFile: takes.text("--token FILE  a file with a token of a caller, which is not printed"),
      timeoutMs: takes.byDefault(
        takes.duration("--timeout DURATION  how long COMMAND may run (default 60s)"),
        60_000,
      ),
      json,
      command: takes.rest,
    },
    objection: ({ tokenFile, command }) =>
      tokenFile !== undefined && command.length > 0
        ? "doctor explains a token or runs a command, not both"
        : undefined,
    load: async () => (await import("../doctor/doctor.ts")).doctor,
    exits: true,
  }),
  explain: command({
    usage: {
      "explain --config FILE (--connect HOST:PORT | --url URL) [options]":
        "what would become of it: who decides, by which entry and rule, at\nwhich address, and what would be attached; 0 passes, 1 refused",
    },
    parameters: {
      ...file,
      connect: takes.text(
        "--connect HOST:PORT  a CONNECT; with --method, --path, --header or --body also the request in it",
      ),
      url: takes.text("--url URL  a request, through a CONNECT when it is https"),
      method: takes.text("--method NAME  of the request (default GET)"),
      path: takes.text("--path PATH  of the request (default /)"),
      headers: takes.repeated(
        '--header "N: v"  a field of the request; may be repeated',
        (field) => {
          const colon = field.indexOf(":");
          if (colon < 1) takes.misuse('--header must be "Name: value"');
          return [field.slice(0, colon).trim(), field.slice(colon + 1).trim()] as const;
        },
      ),
      body: takes.text("--body TEXT  its body"),
      binary: takes.text(
        "--binary PATH  the caller's executable; without it the caller is not identified",
      ),
      ancestors: takes.repeated(
        "--ancestor PATH  an executable above it, nearest first; may be repeated",
        (path) => path,
      ),
      caller: takes.text("--caller NAME  the authenticated name of the agent"),
      isOffline: takes.flag("--no-resolve  ask no resolver"),
      json,
    },
    objection: ({ connect, url }) =>
      (connect === undefined) === (url === undefined)
        ? "explain needs --connect HOST:PORT or --url URL"
        : undefined,
    load: async () => (await import("../rehearsal/explain.ts")).explain,
  }),
  "policy test": command({
    usage: {
      "policy test DIRECTORY [--json]":
        "run the YAML cases of a directory and print a table; 1 when one fails",
    },
    parameters: {
      directory: takes.argument("policy test needs a directory of cases"),
      json,
    },
    load: async () => (await import("../rehearsal/policy-test.ts")).testPolicies,
  }),
  "policy suggest": command({
    usage: {
      "policy suggest --config FILE [--from DENIALS] [--json]":
        "the smallest addition to the policy that would allow what the\nrunning proxy refused, with a note on the risk of each line",
    },
    parameters: {
      ...file,
      from: takes.text(
        "--from DENIALS  a saved answer of /v1/policy/denials instead of the running proxy (- is stdin)",
      ),
      json,
    },
    load: async () => (await import("../rehearsal/suggest.ts")).suggestPolicy,
  }),
  "policy learn": command({
    usage: {
      "policy learn --config FILE [--from SOURCE …] [--out FILE [--review]] [--json]":
        "the policy that lets through what a proxy let through, from its\nevents; what a policy file says already stays",
    },
    parameters: {
      ...file,
      from: takes.repeated(
        "--from SOURCE  a file of events (session.persist, tail --json), or the URL of a session API; may be repeated\n(default: the running proxy)",
        (source) =>
          !/^https?:/.test(source) || URL.canParse(source)
            ? source
            : takes.misuse("--from must be a file, or a URL such as http://127.0.0.1:9094"),
      ),
      out: takes.text("--out FILE  the policy file to make or to add to (default: stdout)"),
      review: reviewFlag,
      json,
    },
    load: async () => (await import("../learn/command.ts")).learnPolicy,
    exits: true,
  }),
  approve: approveRow,
  tail: command({
    usage: { "tail [--config FILE | --url URL] [options]": "show what happens in a running proxy" },
    parameters: {
      file: config,
      lenient,
      url: sessionApiUrl,
      session: takes.text("--session ID  only events of this session"),
      host: takes.value("--host TEXT  only events of hosts with this text", (host) =>
        host.toLowerCase(),
      ),
      plugin: takes.text("--plugin NAME  only events of this plugin"),
      decision: takes.choice("--decision KIND  only events of this kind: allow, deny or error", [
        "allow",
        "deny",
        "error",
      ]),
      limit: takes.byDefault(takes.whole("--limit N  kept events to begin with (default 20)"), 20),
      isJson: takes.flag("--json  one JSON object per event"),
      secretFile: takes.text(
        "--secret-file FILE  the secret of session.api_secret_file (default: the one of the file)",
      ),
    },
    objection: ({ url, file }) =>
      url === undefined || file === undefined ? undefined : "--url and --config exclude each other",
    load: async () => (await import("../tail.ts")).tail,
  }),
  ...auditRows,
  schema: command({
    usage: { schema: "print the JSON Schema of the file" },
    parameters: {},
    load: async () => (await import("../schema.ts")).schema,
  }),
  health: command({
    usage: {
      "health --config FILE [--ready]":
        "whether the proxy of this file answers, for health checks; 0 it does, 1 it does not",
    },
    parameters: { ...file, isReady: takes.flag("--ready  also whether it is ready to serve") },
    load: async () => (await import("../doctor/health.ts")).health,
    exits: true,
  }),
  ...shellCommands,
  "policy schema": command({
    usage: { "policy schema [--json]": "print the JSON Schema of policy files" },
    // JSON in any case: whoever asks every command for it need not leave this one out.
    parameters: { json },
    load: async () => (await import("../schema.ts")).schemaOfPolicies,
  }),
  demo: command({
    name: "--demo",
    usage: {
      "--demo [--ca-dir DIR]":
        "a forward proxy on 127.0.0.1:47600 that opens TLS and shows traffic",
    },
    parameters: {
      caDir: takes.byDefault(
        takes.text("--ca-dir DIR  directory of the CA and of demo.yaml (default ./cortex-ca)"),
        "./cortex-ca",
      ),
    },
    foreign: {
      "--config": "--demo writes its own configuration: it cannot be used with --config",
    },
    load: async () => (await import("../demo.ts")).demo,
  }),
  version: command({
    name: "--version",
    usage: { "--version": "" },
    parameters: {},
    load: async () => (await import("../version.ts")).printVersion,
  }),
};

/** The table as it is read: every command with its key, and with its name. */
export const rows = Object.entries<Command>(commands).map(([kind, row]) => ({
  name: kind,
  ...row,
  kind: kind as keyof typeof commands,
}));

/** One row as it is read. */
export type Row = (typeof rows)[number];
