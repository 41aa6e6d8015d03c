/** The revision 2026-07-28 of MCP: no sessions, fields that repeat the body; the SDK of that revision on both ends. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { buffer } from "node:stream/consumers";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { createMcpHandler, McpServer } from "@modelcontextprotocol/server";
import { beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { owner } from "../support/owner.ts";
import { type Fetch, throughProxy } from "../support/proxied-fetch.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const called: string[] = [];
const fields: IncomingMessage["headers"][] = [];
let url: string;
let through: Fetch;
let agent: Client;

const handler = createMcpHandler(() => {
  const server = new McpServer({ name: "stateless", version: "1" });
  for (const name of ["fetch_url", "exec"]) {
    server.registerTool(name, { inputSchema: z.object({ url: z.string() }) }, ({ url: asked }) => {
      called.push(`${name} ${asked}`);
      return { content: [{ type: "text" as const, text: `fetched ${asked}` }] };
    });
  }
  return server;
});

async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
  fields.push(request.headers);
  const headers = Object.entries(request.headers).map(([name, value]) => [name, String(value)]);
  const body = await buffer(request);
  const answer = await handler.fetch(
    new Request(`http://127.0.0.1${request.url ?? ""}`, {
      method: request.method ?? "",
      headers: headers as [string, string][],
      ...(body.length === 0 ? {} : { body: new Uint8Array(body) }),
    }),
  );
  response.writeHead(answer.status, Object.fromEntries(answer.headers));
  response.end(Buffer.from(await answer.arrayBuffer()));
}

beforeAll(async () => {
  const origin: Server = createServer((request, response) => {
    void serve(request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
  await own({ close: async () => void origin.close() });
  url = `http://127.0.0.1:${(origin.address() as AddressInfo).port}/mcp`;
  const config = {
    servers: [
      {
        name: "stateless",
        rules: [
          {
            name: "weather",
            tools: ["fetch_url"],
            arguments: { url: { url: { hosts: ["api.weather.gov"] } } },
          },
        ],
      },
    ],
  };
  const plugins = ["mcp-parser", { name: "tool-policy", config }];
  const proxy = await own(
    ProxyProcess.start(settings({ pipeline: { outbound: { default: "deny", plugins } } })),
  );
  const http = await own(Promise.resolve(throughProxy(`http://127.0.0.1:${proxy.forward.port}`)));
  through = http.fetch;
  agent = new Client(
    { name: "agent", version: "1" },
    { versionNegotiation: { mode: { pin: "2026-07-28" } } },
  );
  await agent.connect(new StreamableHTTPClientTransport(new URL(url), { fetch: through }));
  await own({ close: () => agent.close() });
}, 40_000);

test("the SDK speaks the revision, and its fields reach the server", async () => {
  const { content } = await agent.callTool({
    name: "fetch_url",
    arguments: { url: "https://api.weather.gov" },
  });
  expect(content).toEqual([{ type: "text", text: "fetched https://api.weather.gov" }]);
  expect(fields.at(-1)).toMatchObject({
    "mcp-method": "tools/call",
    "mcp-name": "fetch_url",
    "mcp-protocol-version": "2026-07-28",
  });
});

test("seed 004: what the rules refuse is refused in words", async () => {
  for (const asked of ["https://malicious.com", "http://169.254.169.254/metadata"]) {
    await expect(agent.callTool({ name: "fetch_url", arguments: { url: asked } })).rejects.toThrow(
      /is not allowed with these arguments/,
    );
  }
  expect(called).toEqual(["fetch_url https://api.weather.gov"]);
});

test("MCP-12: the list shows what may be used", async () => {
  const { tools } = await agent.listTools();
  expect(tools.map(({ name }) => name)).toEqual(["fetch_url"]);
});

test("MCP-09: a field that says something else than the body is 400 with -32020", async () => {
  const post = async (headers: Readonly<Record<string, string>>) => {
    const answer = await through(url, {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        Accept: "application/json, text/event-stream",
        ...headers,
      },
      body: JSON.stringify({
        jsonrpc: "2.0",
        id: "x",
        method: "tools/call",
        params: { name: "fetch_url", arguments: { url: "https://api.weather.gov" } },
      }),
    });
    return [answer.status, await answer.json()];
  };
  const refused = [
    400,
    { jsonrpc: "2.0", id: "x", error: { code: -32_020, data: { plugin: "tool-policy" } } },
  ];
  expect(await post({ "Mcp-Method": "tools/list" })).toMatchObject(refused);
  expect(await post({ "Mcp-Method": "tools/call", "Mcp-Name": "exec" })).toMatchObject(refused);
});
