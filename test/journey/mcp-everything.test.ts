/** The protocol's own test server, with everything that it can do, through both proxies and untouched by them. */
import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import {
  CreateMessageRequestSchema,
  ElicitRequestSchema,
  ListRootsRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { freePort } from "../support/free-port.ts";
import { asTransport } from "../support/mcp-server.ts";
import { eventually } from "../support/eventually.ts";
import { owner } from "../support/owner.ts";
import { type Fetch, throughProxy } from "../support/proxied-fetch.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const program = fileURLToPath(
  import.meta.resolve("@modelcontextprotocol/server-everything/dist/index.js"),
);

let everything: ChildProcess;
let origin: string;
let proxy: ProxyProcess;

beforeAll(async () => {
  const port = await freePort();
  everything = spawn(process.execPath, [program, "streamableHttp"], {
    env: { PATH: process.env["PATH"] ?? "", PORT: String(port) },
    stdio: "ignore",
  });
  origin = `http://127.0.0.1:${port}`;
  await eventually(async () => (await fetch(`${origin}/mcp`)).status > 0, 20_000);
  const plugins = ["mcp-parser"];
  proxy = await own(
    ProxyProcess.start(
      settings({
        listener: { reverse_proxy_backend: origin },
        pipeline: { inbound: { plugins }, outbound: { plugins } },
      }),
    ),
  );
}, 40_000);
afterAll(() => {
  everything.kill("SIGKILL");
});

const forward = async (): Promise<[string, Fetch]> => [
  `${origin}/mcp`,
  (await own(Promise.resolve(throughProxy(`http://127.0.0.1:${proxy.forward.port}`)))).fetch,
];
const reverse = async (): Promise<[string, Fetch]> => [
  `http://127.0.0.1:${proxy.reverse.port}/mcp`,
  fetch,
];

interface Agent {
  readonly client: Client;
  readonly asked: string[];
  close(): Promise<void>;
}

async function connect([url, through]: [string, Fetch]): Promise<Agent> {
  const client = new Client(
    { name: "agent", version: "1" },
    { capabilities: { sampling: {}, elicitation: {}, roots: { listChanged: true } } },
  );
  const asked: string[] = [];
  client.setRequestHandler(CreateMessageRequestSchema, () => {
    asked.push("sampling");
    return { role: "assistant", model: "m", content: { type: "text", text: "sampled" } };
  });
  client.setRequestHandler(ElicitRequestSchema, () => {
    asked.push("elicitation");
    return { action: "decline" };
  });
  client.setRequestHandler(ListRootsRequestSchema, () => {
    asked.push("roots");
    return { roots: [{ uri: "file:///a" }] };
  });
  const transport = new StreamableHTTPClientTransport(new URL(url), { fetch: through });
  await client.connect(asTransport(transport));
  return { client, asked, close: () => client.close() };
}

/** What an agent sees of the server, in a form that two ways can be compared in. */
async function survey({ client, asked }: Agent): Promise<Record<string, unknown>> {
  const { tools } = await client.listTools();
  const { resources } = await client.listResources();
  const { resourceTemplates } = await client.listResourceTemplates();
  const { prompts } = await client.listPrompts();
  const progress: number[] = [];
  const long = await client.callTool(
    { name: "trigger-long-running-operation", arguments: { duration: 0.2, steps: 4 } },
    undefined,
    { onprogress: ({ progress: at }) => void progress.push(at) },
  );
  const echo = await client.callTool({ name: "echo", arguments: { message: "grüße 🌍" } });
  const sampled = await client.callTool({
    name: "trigger-sampling-request",
    arguments: { prompt: "p" },
  });
  const resource = await client.readResource({ uri: resources[0]?.uri ?? "" });
  const prompt = await client.getPrompt({ name: prompts[0]?.name ?? "" });
  const image = await client.callTool({ name: "get-tiny-image", arguments: {} });
  await client.ping();
  await client.setLoggingLevel("debug");
  return {
    tools,
    resources,
    resourceTemplates,
    prompts,
    progress,
    long,
    echo,
    sampled,
    resource,
    prompt,
    image,
    asked: asked.includes("sampling"),
  };
}

describe.each([
  ["forward", forward],
  ["reverse", reverse],
])("through the %s proxy", (_name, way) => {
  test("an agent sees what it sees without the proxy", { timeout: 30_000 }, async () => {
    const direct = await survey(await own(connect([`${origin}/mcp`, fetch])));
    const proxied = await survey(await own(connect(await way())));
    expect(proxied).toEqual(direct);
    expect(proxied).toMatchObject({ progress: [1, 2, 3, 4], asked: true });
  });
});
