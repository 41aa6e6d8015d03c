/** The transport before Streamable HTTP: messages are posted and acknowledged with 202, what they are answered is on a stream. */
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { SSEServerTransport } from "@modelcontextprotocol/sdk/server/sse.js";
import { z } from "zod";
import { afterAll, beforeAll, expect, test } from "vitest";
import { asTransport } from "../support/mcp-server.ts";
import { owner } from "../support/owner.ts";
import { throughProxy } from "../support/proxied-fetch.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const calls: string[] = [];
/** Answers to POST as the client got them. */
const acknowledged: { status: number; text: string }[] = [];
let server: Server;
let client: Client;

function toolServer(): McpServer {
  const made = new McpServer({ name: "older", version: "1.0.0" });
  for (const name of ["add", "exec"]) {
    made.registerTool(name, { inputSchema: { text: z.string() } }, ({ text }) => {
      calls.push(name);
      return { content: [{ type: "text", text: `${name} ${text}` }] };
    });
  }
  return made;
}

beforeAll(async () => {
  const transports = new Map<string, SSEServerTransport>();
  server = createServer((request, response) => {
    const url = new URL(request.url ?? "/", "http://server");
    if (request.method === "GET") {
      const transport = new SSEServerTransport("/messages", response);
      transports.set(transport.sessionId, transport);
      void toolServer().connect(asTransport(transport));
    } else {
      void transports
        .get(url.searchParams.get("sessionId") ?? "")
        ?.handlePostMessage(request, response);
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const rules = [{ name: "sums", tools: ["add"] }];
  const config = { servers: [{ name: "older", paths: ["/sse", "/messages"], rules }] };
  const plugins = ["mcp-parser", { name: "tool-policy", config }];
  const proxy = await own(
    ProxyProcess.start(settings({ pipeline: { outbound: { default: "deny", plugins } } })),
  );
  const agent = await own(Promise.resolve(throughProxy(`http://127.0.0.1:${proxy.forward.port}`)));
  client = new Client({ name: "test-agent", version: "1.0.0" });
  const transport = new SSEClientTransport(new URL(`http://127.0.0.1:${port}/sse`), {
    fetch: async (url, init) => {
      const answer = await agent.fetch(url, init);
      if (init?.method !== "POST") return answer;
      acknowledged.push({ status: answer.status, text: await answer.clone().text() });
      return answer;
    },
  });
  await client.connect(asTransport(transport));
}, 40_000);

afterAll(async () => {
  await client.close();
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

test("the handshake, a call and its result get through, each acknowledged with its status", async () => {
  const { content } = await client.callTool({ name: "add", arguments: { text: "1" } });
  expect(content).toEqual([{ type: "text", text: "add 1" }]);
  expect(calls).toEqual(["add"]);
  expect(acknowledged.map(({ status }) => status)).toEqual([202, 202, 202]);
});

test("the stream is judged: the list has what may be used", async () => {
  const { tools } = await client.listTools();
  expect(tools.map(({ name }) => name)).toEqual(["add"]);
});
