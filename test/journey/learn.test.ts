/** From a run that is let through to a policy that lets the same through and nothing else. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { TestAuthority } from "../support/certs.ts";
import { mainFile } from "../support/program.ts";
import type { Asked, Outcome } from "../support/stand-in-agent.ts";
import { readAll, TlsOrigin } from "../support/tls-origin.ts";

const agent = new URL("../support/stand-in-agent.ts", import.meta.url).pathname;
const names = ["api.test", "models.test", "packages.test", "docs.test", "mcp.test"];

let directory = "";
let origin: TlsOrigin;
let other: TlsOrigin;

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Without an input there is no terminal and no pipe, as under a service. */
function cli(args: readonly string[], input: string | null = ""): Promise<Ended> {
  const child: ChildProcess = spawn(process.execPath, [mainFile, ...args], {
    cwd: directory,
    env: { PATH: process.env["PATH"] ?? "", HOME: directory },
    stdio: [input === null ? "ignore" : "pipe", "pipe", "pipe"],
  });
  child.stdin?.end(input);
  let stdout = "";
  let stderr = "";
  child.stdout?.on("data", (chunk) => (stdout += String(chunk)));
  child.stderr?.on("data", (chunk) => (stderr += String(chunk)));
  return new Promise((resolve) => child.once("close", (code) => resolve({ code, stdout, stderr })));
}

/** The agent sends the requests behind a proxy of its own. */
async function sent(
  requests: readonly Asked[],
  options: readonly string[],
  input: string | null = "",
): Promise<Ended & { readonly outcomes: readonly Outcome[] }> {
  const command = [process.execPath, agent, JSON.stringify(requests)];
  const ended = await cli(["run", ...options, "--", ...command], input);
  const found = ended.stdout === "" ? "[]" : ended.stdout;
  return { ...ended, outcomes: JSON.parse(found) as Outcome[] };
}

async function configFile(fileName: string, outbound: string, more = ""): Promise<string> {
  const path = join(directory, fileName);
  const hosts = [...names, "evil.test", "sub.api.test"];
  const text = `listener: { roles: [forward] }
egress: { allow_ips: [127.0.0.1/32], hosts: { ${hosts.map((host) => `${host}: [127.0.0.1]`).join(", ")} } }
pipeline: { outbound: ${outbound} }
tls_bridge: { mode: enabled, ca_dir: ./ca, ports: [${origin.port}, ${other.port}], upstream_ca_bundle: ${join(directory, "roots.crt")} }
${more}`;
  await writeFile(path, text);
  return path;
}

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), "authbridge-learn-test-"));
  const authority = await TestAuthority.create("origin root");
  const certificate = await authority.server([...names, "evil.test", "sub.api.test"]);
  origin = await TlsOrigin.start(certificate);
  other = await TlsOrigin.start(certificate);
  origin.on("/mcp", async (request, response, seen) => {
    const body = await readAll(request, seen);
    response.setHeader("content-type", "application/json");
    const { id } = (body.length > 0 ? JSON.parse(body.toString()) : {}) as { id?: number };
    if (id === undefined) response.writeHead(202).end();
    else response.end(JSON.stringify({ jsonrpc: "2.0", id, result: {} }));
  });
  await writeFile(join(directory, "roots.crt"), authority.caPem);
});

afterAll(async () => {
  await Promise.all([origin.close(), other.close()]);
  await rm(directory, { recursive: true, force: true });
});

const url = (host: string, path: string): string => `https://${origin.at(host)}${path}`;
const rpc = (method: string, params?: object): Asked => [
  "POST",
  url("mcp.test", "/mcp"),
  { jsonrpc: "2.0", id: 1, method, params },
];
const tool = (name: string, args: object): Asked => rpc("tools/call", { name, arguments: args });
const chat = { model: "gpt-4o", messages: [{ role: "user", content: "hello" }] };
const uuid = (end: string): string => `6ba7b810-9dad-11d1-80b4-00c04fd4300${end}`;

/** Forty requests to five hosts, with three tools. */
function work(): readonly Asked[] {
  const get = (host: string, path: string): Asked => ["GET", url(host, path)];
  return [
    ...[1, 2, 3, 4, 5, 6, 7, 8].map((id) => get("api.test", `/items/${id}?token=hidden`)),
    ...["1", "2", "3"].map((end) => get("api.test", `/items/${uuid(end)}/reviews`)),
    ...[1, 2].map((total): Asked => ["POST", url("api.test", "/orders"), { total }]),
    ...[1, 2, 3, 4, 5].map((day) => get("api.test", `/reports/2026-11-0${day}`)),
    ...["3f2a9c1", "da39a3e", "0b1c2d3"].map((sha) => get("api.test", `/commits/${sha}`)),
    get("api.test", "/status"),
    ...[1, 2, 3].map((): Asked => ["POST", url("models.test", "/v1/chat/completions"), chat]),
    get("packages.test", "/@scope%2Fname"),
    get("packages.test", "/left-pad"),
    get("docs.test", "/guide/intro"),
    get("docs.test", "/guide/intro"),
    rpc("initialize", { protocolVersion: "2025-06-18", capabilities: {} }),
    ["POST", url("mcp.test", "/mcp"), { jsonrpc: "2.0", method: "notifications/initialized" }],
    rpc("tools/list"),
    tool("weather", { city: "Oslo", days: 3 }),
    tool("weather", { city: "Bergen", days: 7 }),
    tool("weather", { city: "Oslo", days: 1 }),
    tool("fetch_page", { url: "https://docs.test/a" }),
    tool("fetch_page", { url: "https://docs.test/b?c=d" }),
    tool("read_file", { path: "/work/a.txt", mode: "text" }),
    tool("read_file", { path: "/work/b.txt" }),
    ["DELETE", url("mcp.test", "/mcp")],
  ];
}

/** What the agent did not do, a step beside each thing that it did. */
function deviations(): readonly Asked[] {
  return [
    ["GET", url("evil.test", "/")],
    ["GET", url("evil.test", "/items/1")],
    ["GET", url("sub.api.test", "/items/1")],
    ["GET", `https://${other.at("api.test")}/items/1`],
    ["DELETE", url("api.test", "/items/1")],
    ["PUT", url("api.test", "/items/1"), {}],
    ["POST", url("api.test", "/items/1"), {}],
    ["PATCH", url("api.test", "/orders"), {}],
    ["GET", url("api.test", "/orders")],
    ["GET", url("api.test", "/items")],
    ["GET", url("api.test", "/items/1/delete")],
    ["GET", url("api.test", "/items/1/reviews/2")],
    ["GET", url("api.test", "/admin")],
    ["GET", url("api.test", "/reports")],
    ["GET", url("api.test", "/commits/3f2a9c1/diff")],
    ["GET", url("models.test", "/v1/models")],
    ["POST", url("models.test", "/v1/files"), {}],
    ["GET", url("models.test", "/items/1")],
    ["GET", url("packages.test", "/@other%2Fname")],
    ["GET", url("docs.test", "/guide/other")],
    ["POST", url("docs.test", "/guide/intro"), {}],
    tool("delete_file", { path: "/work/a.txt" }),
    tool("weather", { city: "Moscow", days: 3 }),
    tool("weather", { city: "Oslo", days: 99 }),
    tool("weather", { city: "Oslo", days: 3, debug: true }),
    tool("weather", { city: "Oslo" }),
    tool("fetch_page", { url: "https://evil.test/a" }),
    tool("fetch_page", { url: "https://docs.test.evil.test/" }),
    tool("fetch_page", { url: "https://docs.test@evil.test/" }),
    tool("read_file", { path: "/etc/passwd" }),
    rpc("resources/read", { uri: "file:///etc/passwd" }),
    rpc("prompts/get", { name: "x" }),
    ["POST", url("mcp.test", "/mcp2"), { jsonrpc: "2.0", id: 1, method: "tools/list" }],
    ["PUT", url("mcp.test", "/mcp"), {}],
  ];
}

describe("a learned policy", () => {
  test("lets all of the run through and none of what deviates from it", async () => {
    const fenced = await configFile(
      "fenced.yaml",
      "{ default: deny, plugins: [{ name: egress-policy, config: { allow: [] } }] }",
    );
    const file = join(directory, "learned.yaml");
    expect(work()).toHaveLength(40);
    expect(deviations().length).toBeGreaterThanOrEqual(30);
    const first = await sent(work(), ["--config", fenced, "--learn", file]);
    expect(first.code, first.stderr).toBe(0);
    // Everything passes meanwhile, also what the file would refuse.
    expect(
      first.outcomes.filter(({ isRefused }) => isRefused),
      first.stderr,
    ).toEqual([]);
    const text = await readFile(file, "utf8");
    expect(text).not.toContain("hidden");
    expect(text).toContain("# seen: /items/1, /items/2, /items/3, and 5 more");
    expect(text).toContain("# language model: openai.chat gpt-4o");
    expect(text).toMatch(/# risk: POST sends data out/);
    if (process.platform === "linux") expect(text).toContain(`path: ${process.execPath}`);

    const held = await configFile(
      "held.yaml",
      `{ default: deny, plugins: [{ name: egress-policy, config: { policy_file: ${file} } }] }`,
    );
    const again = await sent(work(), ["--config", held]);
    expect(
      again.outcomes.filter(({ isRefused }) => isRefused),
      again.stderr,
    ).toEqual([]);
    const seen = origin.seen.length + other.seen.length;
    const tried = await sent(deviations(), ["--config", held]);
    expect(tried.outcomes.filter(({ isRefused }) => !isRefused)).toEqual([]);
    expect(tried.outcomes).toHaveLength(deviations().length);
    expect(origin.seen.length + other.seen.length).toBe(seen);

    // Learning the same again changes no byte.
    const twice = await sent(work(), ["--config", fenced, "--learn", file]);
    expect(twice.code, twice.stderr).toBe(0);
    expect(await readFile(file, "utf8")).toBe(text);
  }, 60_000);

  test("turns the bridge on by itself", async () => {
    const plain = await configFile("plain.yaml", "{ default: allow }");
    const off = (await readFile(plain, "utf8")).replace("mode: enabled", "mode: disabled");
    await writeFile(plain, off);
    const file = join(directory, "bridge.yaml");
    const asked: readonly Asked[] = [["GET", url("docs.test", "/guide/intro")]];
    const ran = await sent(asked, ["--config", plain, "--learn", file]);
    expect(ran.code, ran.stderr).toBe(0);
    expect(await readFile(file, "utf8")).toContain("path: /guide/intro");
  });

  test("is reviewed rule by rule: accepted, narrowed, dropped; nobody there means nothing written", async () => {
    const open = await configFile("open.yaml", "{ default: allow }");
    const file = join(directory, "reviewed.yaml");
    const asked: readonly Asked[] = [
      ["GET", url("api.test", "/items/1")],
      ["POST", url("api.test", "/orders"), {}],
      ["GET", url("api.test", "/status")],
    ];
    const options = ["--config", open, "--learn", file, "--review"];
    const left = await sent(asked, options, "");
    expect(left.code).toBe(1);
    expect(left.stderr).toContain("nothing was written");
    await expect(readFile(file)).rejects.toThrow();
    // In the order of paths: items, orders, status.
    const ran = await sent(asked, options, "n\nd\na\n");
    expect(ran.code, ran.stderr).toBe(0);
    const { network_policies: entries } = parse(await readFile(file, "utf8")) as {
      network_policies: Record<string, { endpoints: { rules: { allow: object }[] }[] }>;
    };
    const rules = Object.values(entries).flatMap(({ endpoints }) =>
      endpoints.flatMap((one) => one.rules),
    );
    expect(rules.map(({ allow }) => allow)).toEqual([
      { method: "GET", path: "/items/1" },
      { method: "GET", path: "/status" },
    ]);
  });

  test("adds to a file that is there, and refuses one that is none before the command runs", async () => {
    const open = await configFile("open.yaml", "{ default: allow }");
    const file = join(directory, "mine.yaml");
    await writeFile(file, "network_policies: [\n");
    const refused = await sent([], ["--config", open, "--learn", file]);
    expect(refused.code).toBe(2);
    expect(refused.stdout).toBe("");
    expect(refused.stderr).toContain("mine.yaml");
    const mine = `version: 1
network_policies:
  # by hand
  docs:
    endpoints:
      - { host: docs.test, port: ${origin.port} } # open whole
`;
    await writeFile(file, mine);
    const asked: readonly Asked[] = [
      ["GET", url("docs.test", "/guide/intro")],
      ["GET", url("api.test", "/status")],
    ];
    const ran = await sent(asked, ["--config", open, "--learn", file]);
    expect(ran.code, ran.stderr).toBe(0);
    const text = await readFile(file, "utf8");
    expect(text.startsWith(mine)).toBe(true);
    expect(text).toContain("path: /status");
    expect(text).not.toContain("/guide/intro");
  });
});

describe("policy learn", () => {
  test("is reviewed without anybody there, where nothing is left to ask", async () => {
    const open = await configFile("unattended.yaml", "{ default: allow, plugins: [] }");
    const options = ["--config", open, "--learn", join(directory, "unattended-policy.yaml")];
    const asked: readonly Asked[] = [["GET", url("api.test", "/items/1")]];
    const first = await sent(asked, options);
    expect(first.code, first.stderr).toBe(0);
    const second = await sent(asked, [...options, "--review"], null);
    expect(second.code, second.stderr).toBe(0);
  });

  test("reads event files, and adds what their requests need", async () => {
    const events = join(directory, "events.jsonl");
    const open = await configFile(
      "persist.yaml",
      "{ default: allow, plugins: [mcp-parser] }",
      `session: { persist: { path: ${events} } }\n`,
    );
    const ran = await sent(
      [["GET", url("api.test", "/items/1")], tool("weather", { city: "Oslo" })],
      ["--config", open],
    );
    expect(ran.code, ran.stderr).toBe(0);
    const told = await cli(["policy", "learn", "--config", open, "--from", events]);
    expect(told.code, told.stderr).toBe(0);
    expect(told.stdout).toContain("path: /items/*");
    expect(told.stdout).toContain("tool: weather");
    const out = join(directory, "out.yaml");
    const written = await cli([
      "policy",
      "learn",
      "--config",
      open,
      "--from",
      events,
      "--out",
      out,
    ]);
    expect(written).toMatchObject({ code: 0, stdout: "" });
    expect(await readFile(out, "utf8")).toBe(told.stdout);
  });

  test("says that the bridge would learn more of connections that nobody looked into", async () => {
    const open = await configFile("open.yaml", "{ default: allow }");
    const events = join(directory, "opaque.jsonl");
    const base = {
      sessionId: "s",
      at: "2026-01-01T00:00:00Z",
      direction: "outbound",
      requestId: "1",
    };
    const tunnel = { ...base, host: "db.test:443", tunnel: true };
    const lines = [
      { ...tunnel, phase: "request" },
      { ...tunnel, phase: "response", statusCode: 200, bytesReceived: 9 },
    ];
    await writeFile(events, lines.map((event) => `${JSON.stringify({ event })}\n`).join(""));
    const told = await cli(["policy", "learn", "--config", open, "--from", events]);
    expect(told.code, told.stderr).toBe(0);
    expect(told.stdout).toContain("host: db.test");
    expect(told.stderr).toContain("the TLS bridge (tls_bridge.mode: enabled".replace("the", "The"));
  });

  test("says what is wrong with its source", async () => {
    const open = await configFile("open.yaml", "{ default: allow }");
    const missing = await cli(["policy", "learn", "--config", open, "--from", "/nonexistent"]);
    expect(missing.code).toBe(2);
    const none = await cli(["policy", "learn", "--config", open, "--from", open]);
    expect(none.code).toBe(2);
    expect(none.stderr).toContain("no session event");
  });
});
