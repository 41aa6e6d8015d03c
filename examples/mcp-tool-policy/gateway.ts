/** An MCP server as its authors build one, and the site that it stands beside. */
import { randomUUID } from "node:crypto";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { z } from "zod";

/** What a listening server is to the demo. */
export interface Service {
  readonly port: number;
  close(): Promise<void>;
}

async function listen(serve: RequestListener): Promise<Service> {
  const server: Server = createServer(serve);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A stand-in for the sites: it answers everything with 200. */
export function startSite(): Promise<Service> {
  return listen((_request, response) => response.end("{}"));
}

/** The gateway. `calls` are the calls that reached it; it says what it would fetch and fetches nothing. */
export async function startGateway(): Promise<Service & { readonly calls: string[] }> {
  const calls: string[] = [];
  const sessions = new Map<string, StreamableHTTPServerTransport>();
  const service = await listen((request, response) => {
    const session = request.headers["mcp-session-id"];
    const known = typeof session === "string" ? sessions.get(session) : undefined;
    const serve = async (): Promise<void> => {
      const transport = known ?? (await open(sessions, calls));
      await transport.handleRequest(request, response);
    };
    void serve().catch(() => response.destroy());
  });
  return { ...service, calls };
}

async function open(
  sessions: Map<string, StreamableHTTPServerTransport>,
  calls: string[],
): Promise<StreamableHTTPServerTransport> {
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: () => randomUUID(),
    onsessioninitialized: (id) => void sessions.set(id, transport),
  });
  const server = new McpServer({ name: "gateway", version: "1.0.0" });
  const tool = (name: string, argument: string): void => {
    server.registerTool(name, { inputSchema: { [argument]: z.string() } }, (args) => {
      const call = `${name}(${JSON.stringify(args[argument])})`;
      calls.push(call);
      return { content: [{ type: "text" as const, text: `done: ${call}` }] };
    });
  };
  tool("fetch_url", "url");
  tool("read_file", "path");
  tool("run_command", "command");
  // The optional members of the SDK's class are not those that exactOptionalPropertyTypes wants of its interface.
  await server.connect(transport as object as Transport);
  return transport;
}
