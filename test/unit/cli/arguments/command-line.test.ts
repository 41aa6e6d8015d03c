import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parseCommand } from "../../../../src/cli/arguments/command-line.ts";
import { commands } from "../../../../src/cli/arguments/commands.ts";
import { helpFor } from "../../../../src/cli/arguments/usage.ts";

function messageOf(line: string): string {
  const command = parseCommand(line.split(" ").filter((word) => word !== ""));
  return command.kind === "usage-error" ? command.message : `no error: ${command.kind}`;
}

describe("what is asked for", () => {
  test.each([
    ["--config f", { kind: "run", file: "f", lenient: false }],
    ["check --config f --lenient", { kind: "check", file: "f", json: false, lenient: true }],
    ["ca --config f", { kind: "ca", file: "f", lenient: false, fingerprint: false }],
    ["ca --config f --fingerprint", { kind: "ca", file: "f", lenient: false, fingerprint: true }],
    ["env --config f", { kind: "env", file: "f", lenient: false, format: "shell" }],
    [
      "env --config f --format kubernetes --proxy http://p:1 --ca-file /a --bundle-file /b",
      {
        kind: "env",
        file: "f",
        lenient: false,
        format: "kubernetes",
        proxy: "http://p:1",
        caFile: "/a",
        bundleFile: "/b",
      },
    ],
    [
      "doctor --config f",
      { kind: "doctor", file: "f", lenient: false, command: [], json: false, timeoutMs: 60_000 },
    ],
    [
      "doctor --config f --token t",
      {
        kind: "doctor",
        json: false,
        file: "f",
        lenient: false,
        command: [],
        timeoutMs: 60_000,
        tokenFile: "t",
      },
    ],
    [
      "doctor --config f --timeout 5m -- curl --config x -- y",
      {
        kind: "doctor",
        json: false,
        file: "f",
        lenient: false,
        command: ["curl", "--config", "x", "--", "y"],
        timeoutMs: 300_000,
      },
    ],
    ["run --config f", { kind: "run", file: "f", lenient: false }],
    ["run -- a -- b", { kind: "run-command", lenient: false, command: ["a", "--", "b"] }],
    [
      "run --config f --lenient -- a",
      { kind: "run-command", file: "f", lenient: true, command: ["a"] },
    ],
    [
      "run --policy p -- a",
      { kind: "run-command", policyFile: "p", lenient: false, command: ["a"] },
    ],
    ["init", { kind: "init", starter: "local", file: "authbridge.yaml" }],
    ["init --gateway --config g", { kind: "init", starter: "gateway", file: "g" }],
    ["--demo", { kind: "demo", caDir: "./cortex-ca" }],
    ["--demo --ca-dir d", { kind: "demo", caDir: "d" }],
    ["schema", { kind: "schema" }],
    ["policy schema", { kind: "policy schema", json: false }],
    ["doctor --help", { kind: "help" }],
    ["-config f", { kind: "run", file: "f", lenient: false }],
    ["check -config=f -lenient", { kind: "check", file: "f", json: false, lenient: true }],
    ["-demo=true -ca-dir d", { kind: "demo", caDir: "d" }],
    ["-lenient=false --config f", { kind: "run", file: "f", lenient: false }],
    ["-version", { kind: "version" }],
    ["-h", { kind: "help" }],
    ["--config f check", { kind: "check", file: "f", json: false, lenient: false }],
    ["--config f --probe", { kind: "run", file: "f", lenient: false, probe: "always" }],
    [
      "policy suggest --config f --from -",
      { kind: "policy suggest", file: "f", lenient: false, from: "-", json: false },
    ],
    ["policy test d --json", { kind: "policy test", directory: "d", json: true }],
    ["verify-audit a b", { kind: "verify-audit", files: ["a", "b"] }],
    [
      "tail --host Api.Example --limit 5",
      { kind: "tail", lenient: false, host: "api.example", limit: 5, isJson: false },
    ],
    [
      "explain --config f --url http://a/ --header A:1 --header B:2",
      {
        kind: "explain",
        file: "f",
        lenient: false,
        url: "http://a/",
        headers: [
          ["A", "1"],
          ["B", "2"],
        ],
        isOffline: false,
        json: false,
      },
    ],
    ["--version", { kind: "version" }],
  ])("%s", (line, wanted) => {
    expect(parseCommand(line.split(" "))).toEqual(wanted);
  });
});

describe("mistakes", () => {
  test.each([
    ["", "--config is required (or use --demo for the local demo, or run -- COMMAND)"],
    ["ca", "--config is required"],
    ["--demo --config f", "--demo writes its own configuration: it cannot be used with --config"],
    ["schema --policy p.yaml", "--policy does not belong to schema"],
    ["check --demo", "--demo does not belong to check"],
    ["--config f --ca-dir d", "--ca-dir is used with --demo only"],
    ["--demo --format shell", "--format does not belong to --demo"],
    ["--config f --fingerprint", "--fingerprint does not belong to a plain start"],
    ["check --config f --timeout 1s", "--timeout does not belong to check"],
    ["schema --config f", "--config does not belong to schema"],
    ["env --config f --format json", "--format must be one of shell, dotenv, kubernetes"],
    ["doctor --config f --token t -- true", /a token or runs a command/],
    ["check --config f --token t", /--token does not belong to check/],
    ["doctor --config f --timeout soon", /^--timeout must be a duration/],
    ["doctor --config f --timeout 25h", /at most 24h/],
    ["doctor --config f --timeout 0s", /^--timeout must be a duration/],
    ["check --config f -- true", "only run and doctor run a command after --"],
    ["run --", "run needs a command after --"],
    [
      "run --config f --policy p -- a",
      "--policy and --config exclude each other: name the policy in the file",
    ],
    ["run --policy p", "--policy does not belong to a plain start"],
    ["run-command -- a", 'unknown command "run-command"'],
    ["init --local --gateway", "--local and --gateway exclude each other"],
    ["init --lenient", "--lenient does not belong to init"],
    ["serve --config f", 'unknown command "serve"'],
    ["demo", 'unknown command "demo" (did you mean --demo?)'],
    ["help", 'unknown command "help" (did you mean --help?)'],
    ["policy learn --config f --from=", "--from must not be empty"],
    ["run --allow a:0 -- b", /^--allow must be .* a port from 1 to 65535/],
    ["run --allow a:65536 -- b", /^--allow must be/],
    ["run --allow-ip 10.0.0.0/33 -- b", /^--allow-ip must be/],
    ["run --allow-ip 10.0.0 -- b", /^--allow-ip must be/],
    ["tail --url http://a:99999", /^--url must be a URL/],
    ["policy learn --config f --from http://a:99999", /--from must be a file, or a URL/],
    ["toString --config f", 'unknown command "toString"'],
    ["check again --config f", 'unexpected argument "again"'],
    ["--config f --unknown", "unknown option --unknown"],
    ["-confg f", "unknown option --confg (did you mean --config?)"],
    ["doctor --config f --timout 5s", "unknown option --timout (did you mean --timeout?)"],
    ["check --config f --timout 5s", "unknown option --timout"],
    ["--dmo", "unknown option --dmo (did you mean --demo?)"],
    ["chek --config f", 'unknown command "chek" (did you mean check?)'],
    ["policy", "policy needs test or suggest or learn or schema"],
    ["policy tset d", "policy needs test or suggest or learn or schema"],
    ["policy test d e", 'unexpected argument "e"'],
    ["verify-audit", "verify-audit needs the files of a decision log"],
    ["explain --config f", "explain needs --connect HOST:PORT or --url URL"],
    ["explain --config f --url http://a/ --header x", '--header must be "Name: value"'],
    ["explain --config f --timeout 1s", "--timeout does not belong to explain"],
    ["tail --limit many", "--limit must be a whole number"],
    ["tail --config=", "--config must not be empty"],
    ["check --config --lenient", /^--config needs a value/],
    ["check --lenient=maybe --config f", "--lenient takes no value"],
    ["-- true", "only run and doctor run a command after --"],
  ])("%s", (line, wanted) => {
    if (typeof wanted === "string") expect(messageOf(line)).toBe(wanted);
    else expect(messageOf(line)).toMatch(wanted);
  });
});

test.each([
  ["run", "--", ""],
  ["doctor", "--config", "f", "--", "", "a"],
  ["approve", "", "allow"],
  ["verify-audit", "f", "--checkpoint", ""],
])("an empty word is no name: %s %s", (...words) => {
  expect(parseCommand(words)).toMatchObject({ kind: "usage-error" });
});

test("a start loads the table and none of the modules that it names", () => {
  const src = new URL("../../../../src/", import.meta.url);
  const seen = new Set<string>();
  const follow = (file: URL): void => {
    if (seen.has(file.href)) return;
    seen.add(file.href);
    const imports = /^(?:import|export) (?!type )[^"]*"(\.[^"]+)";$/gm;
    for (const [, path = ""] of readFileSync(file, "utf8").matchAll(imports))
      follow(new URL(path, file));
  };
  follow(new URL("main.ts", src));
  // By a dynamic import, so that the cache of compiled code has it.
  follow(new URL("cli/arguments/run-command.ts", src));
  const loaded = [...seen].map((href) => href.slice(src.href.length));
  expect(loaded.filter((path) => !path.startsWith("cli/arguments/")).sort()).toEqual([
    "cli/compile-cache.ts",
    "cli/stack-trace.ts",
    "cli/standard-streams.ts",
    "cli/version.ts",
    "duration.ts",
    "errors.ts",
    "files/given-file.ts",
    "main.ts",
    "yaml/problem.ts",
  ]);
});

test.each(Object.entries(commands))("what %s asks for is there", async (_kind, { load }) => {
  expect(await load()).toBeTypeOf("function");
});

test("the help names every command and option", () => {
  const usage = helpFor([]);
  for (const word of ["check", "ca ", "env ", "doctor ", "schema", "--demo", "--version"])
    expect(usage).toContain(`authbridge-proxy ${word}`);
  for (const option of ["--format", "--proxy", "--ca-file", "--bundle-file", "--timeout"])
    expect(usage).toContain(`  ${option} `);
});
