/** explain and policy test say of a request what the running proxy does with it: same file, same request, same verdict. */
import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { stringify } from "yaml";
import { type Address, request } from "../support/http-client.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { runProgram, type Settings } from "../support/program.ts";
import { merge, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let origin: HttpOrigin;
/** Files for `policy test`, which judges them all at once. */
let folder: string;

beforeAll(async () => {
  origin = await own(HttpOrigin.launch());
  folder = await mkdtemp(join(tmpdir(), "rehearsal-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

type Fields = readonly (readonly [name: string, value: string])[];

/** One request, asked of both. */
interface Question {
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Fields;
  readonly body?: string;
}

interface Both {
  readonly proxy: { readonly isAllowed: boolean; readonly code: string | undefined };
  readonly explained: Explained;
}

interface Explained {
  readonly verdict: string;
  readonly plugin?: string;
  readonly code?: string;
  readonly status?: number;
  readonly reason: string;
  readonly stages: readonly { readonly steps: readonly Settings[] }[];
  readonly credentials: readonly { readonly plugin: string; readonly attaches: string }[];
}

function chain(otherwise: "allow" | "deny", ...plugins: unknown[]): Settings {
  return settings({
    egress: { hosts: { "svc.test": ["127.0.0.1"] } },
    pipeline: { outbound: { default: otherwise, plugins } },
  });
}

let files = 0;

interface RpcData {
  readonly error: string;
}

async function askBoth(proxy: ProxyProcess, question: Question): Promise<Both> {
  const url = `http://svc.test:${origin.port}${question.path ?? "/"}`;
  return {
    proxy: await askProxy(proxy.forward, url, question),
    explained: await askExplain(proxy.path("proxy.yaml"), url, question),
  };
}

async function askProxy(
  forward: Address,
  url: string,
  { method = "GET", headers = [], body }: Question,
): Promise<Both["proxy"]> {
  const before = origin.requests.length;
  const answer = await request(forward, {
    method,
    target: url,
    headers: [
      ["Host", new URL(url).host],
      ...headers,
      ...(body === undefined ? [] : [["Content-Length", `${Buffer.byteLength(body)}`] as const]),
    ],
    ...(body === undefined ? {} : { body }),
  });
  if (origin.requests.length > before) return { isAllowed: true, code: undefined };
  // A refusal of JSON-RPC has it inside.
  const { error } = answer.json() as { readonly error?: string | { readonly data: RpcData } };
  return { isAllowed: false, code: typeof error === "object" ? error.data.error : error };
}

async function askExplain(file: string, url: string, question: Question): Promise<Explained> {
  const { method, headers = [], body } = question;
  const args = ["explain", "--json", "--no-resolve", "--config", file, "--url", url];
  if (method !== undefined) args.push("--method", method);
  for (const [name, value] of headers) args.push("--header", `${name}: ${value}`);
  if (body !== undefined) args.push("--body", body);
  const ended = await runProgram(args);
  expect(ended.stderr).toBe("");
  return JSON.parse(ended.stdout) as Explained;
}

/** One more file of cases, with a copy of the configuration. */
async function keepCase(proxy: ProxyProcess, question: Question, expected: string): Promise<void> {
  const { headers = [], path = "/", ...rest } = question;
  const name = String((files += 1));
  await copyFile(proxy.path("proxy.yaml"), join(folder, `${name}-proxy.yaml`));
  const url = `http://svc.test:${origin.port}${path}`;
  const one = { name, url, ...rest, headers: Object.fromEntries(headers), expect: expected };
  const cases = stringify({ config: `${name}-proxy.yaml`, cases: [one] });
  await writeFile(join(folder, `${name}.yaml`), cases);
}

const call = JSON.stringify({
  jsonrpc: "2.0",
  id: 1,
  method: "tools/call",
  params: { name: "rm" },
});
const injecting = {
  name: "static-inject",
  config: { source: "mappings", mappings: { "svc.test": "k3y" }, placeholder: "PLACEHOLDER" },
};
const withBearer = (token: string): Fields => [["Authorization", `Bearer ${token}`]];
const exchanging = (over: Settings = {}): Settings => ({
  name: "token-exchange",
  config: {
    // Nobody listens here: what is asked of it is a fault.
    token_url: "http://127.0.0.1:9/token",
    identity: { type: "client-secret", client_id: "me", client_secret: "my-secret" },
    ...over,
  },
});
const judging = {
  name: "ibac",
  config: {
    judge_endpoint: "http://127.0.0.1:9",
    judge_model: "m",
    no_intent_policy: "deny",
    bypass_hosts: [],
  },
};
const mcpRules = {
  name: "egress-policy",
  config: {
    network_policies: {
      m: {
        endpoints: [
          {
            host: "svc.test",
            ports: [0],
            protocol: "mcp",
            enforcement: "enforce",
            rules: [{ allow: { method: "tools/call", tool: "rm" } }],
          },
        ],
      },
    },
  },
};
const post = { method: "POST", body: call } as const;

function rulesFor(port: number): unknown {
  const text = JSON.stringify(mcpRules).replace('"ports":[0]', `"port":${port}`);
  return JSON.parse(text) as unknown;
}

describe("explain, policy test and the proxy agree", () => {
  test.each<[what: string, config: () => Settings, question: Question, isAllowed: boolean]>([
    [
      "about facts of a parser that only observes",
      () => chain("allow", { name: "mcp-parser", on_error: "observe" }, judging),
      { ...post, headers: [["Content-Type", "application/json"]] },
      false,
    ],
    [
      "about field names in lower case",
      () => chain("deny", rulesFor(origin.port)),
      { ...post, headers: [["content-type", "application/json"]] },
      true,
    ],
    [
      "about a content type that is not JSON",
      () => chain("deny", rulesFor(origin.port)),
      { ...post, headers: [["content-type", "text/plain"]] },
      false,
    ],
    [
      "about a body that is not in the encoding that its field names",
      () => chain("deny", rulesFor(origin.port)),
      {
        ...post,
        headers: [
          ["Content-Type", "application/json"],
          ["Content-Encoding", "gzip"],
        ],
      },
      false,
    ],
    [
      "about a body above limits.max_body that a guard reads",
      () =>
        merge(chain("allow", { name: "request-body-reader", config: { file: "/dev/null" } }), {
          limits: { max_body: "64KiB" },
        }),
      { method: "POST", body: " ".repeat(70_000) },
      false,
    ],
    [
      "about a body above limits.max_body that only an observer reads",
      () => merge(chain("allow", "mcp-parser"), { limits: { max_body: "64KiB" } }),
      {
        method: "POST",
        body: `[${" ".repeat(70_000)}]`,
        headers: [["Content-Type", "application/json"]],
      },
      true,
    ],
    [
      "about a credential that plain HTTP may not carry",
      () =>
        chain("allow", {
          ...injecting,
          config: { ...injecting.config, allow_plaintext: false },
        }),
      { headers: withBearer("PLACEHOLDER") },
      false,
    ],
    [
      "about a stand-in",
      () => chain("deny", injecting),
      { headers: withBearer("PLACEHOLDER") },
      true,
    ],
    [
      "about another stand-in",
      () => chain("allow", injecting),
      { headers: withBearer("other") },
      false,
    ],
    [
      "about a destination without a credential",
      () =>
        chain("allow", {
          ...injecting,
          config: { ...injecting.config, mappings: { "other.test": "x" } },
        }),
      { headers: withBearer("PLACEHOLDER") },
      false,
    ],
    [
      "about a credential of another host",
      () => chain("deny", { ...injecting, config: { ...injecting.config, hosts: ["other.test"] } }),
      { headers: withBearer("PLACEHOLDER") },
      false,
    ],
    [
      "about a route whose tokens stay as they are",
      () =>
        chain("deny", exchanging({ routes: { rules: [{ host: "svc.test", passthrough: true }] } })),
      { headers: withBearer("mine") },
      true,
    ],
    [
      "about a host without a route",
      () => chain("deny", exchanging({ default_policy: "passthrough" })),
      { headers: withBearer("mine") },
      false,
    ],
    [
      "about an Authorization field that is no bearer token",
      () => chain("allow", exchanging({ default_policy: "exchange" })),
      { headers: [["Authorization", "Basic eDp5"]] },
      false,
    ],
    [
      "about a request that needs no token",
      () => chain("deny", exchanging({ default_policy: "exchange", no_token_policy: "allow" })),
      {},
      false,
    ],
    [
      "about a plugin that faults",
      () => chain("allow", { name: "faulty", config: { hook: "request" } }),
      {},
      false,
    ],
    [
      "about a plugin that faults and only observes",
      () => chain("allow", { name: "faulty", on_error: "observe", config: { hook: "request" } }),
      {},
      true,
    ],
    [
      "about a host that listener.skip_hosts exempts",
      () => merge(chain("deny", "skipper"), { listener: { skip_hosts: ["svc.test"] } }),
      {},
      true,
    ],
  ])("%s", async (_what, config, question, isAllowed) => {
    const running = await own(ProxyProcess.start(config()));
    const verdict = isAllowed ? "allow" : "deny";
    await keepCase(running, question, verdict);
    const { proxy, explained } = await askBoth(running, question);
    expect(proxy.isAllowed).toBe(isAllowed);
    expect(explained.verdict).toBe(verdict);
    expect(explained.code).toBe(proxy.code);
  });
});

test("policy test says the same of all these", async () => {
  const ended = await runProgram(["policy", "test", folder]);
  expect(ended.stderr).toBe("");
  expect(ended.stdout).toContain(`${files} passed, 0 failed`);
});

describe("a rehearsal", () => {
  test("says what would be attached, and fetches and shows none of it", async () => {
    const idp = await own(HttpOrigin.launch());
    const config = chain(
      "deny",
      exchanging({
        token_url: `http://127.0.0.1:${idp.port}/token`,
        default_policy: "exchange",
        routes: { rules: [{ host: "svc.test", target_audience: "svc", token_scopes: "read" }] },
      }),
    );
    const proxy = await own(ProxyProcess.start(config));
    const url = `http://svc.test:${origin.port}/`;
    const said = await askExplain(proxy.path("proxy.yaml"), url, { headers: withBearer("mine") });
    expect(said).toMatchObject({ verdict: "allow", plugin: "token-exchange" });
    expect(said.credentials[0]?.attaches).toContain(`127.0.0.1:${idp.port}/token`);
    expect(said.credentials[0]?.attaches).toContain("audience svc, scope read");
    expect(JSON.stringify(said)).not.toContain("my-secret");
    expect(idp.requestsFor("/token")).toEqual([]);
  });

  test("tells the operator why a plugin faulted", async () => {
    const faulty = { name: "faulty", config: { hook: "request" } };
    const proxy = await own(ProxyProcess.start(chain("allow", faulty)));
    const said = await askExplain(proxy.path("proxy.yaml"), "http://svc.test/", {});
    expect(said.stages.at(-1)?.steps).toEqual([
      expect.objectContaining({
        plugin: "faulty",
        action: "deny",
        reason: "plugin_fault",
        fault: "secret-detail-of-a-fault",
      }),
    ]);
  });

  test("asks no service for its decision, and says so", async () => {
    const server = await own(HttpOrigin.launch());
    const opa = { name: "opa", config: { server_url: `http://127.0.0.1:${server.port}` } };
    const url = `http://svc.test:${origin.port}/`;
    const proxy = await own(ProxyProcess.start(chain("deny", opa)));
    const before = server.connections.length;
    const said = await askExplain(proxy.path("proxy.yaml"), url, {});
    expect(said).toMatchObject({ verdict: "deny", plugin: "opa" });
    expect(said.reason).toContain("bundle_path");
    expect(server.connections).toHaveLength(before);
  });
});
