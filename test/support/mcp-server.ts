/** An MCP server as its authors build one: the official SDK, Streamable HTTP with sessions, over HTTP or TLS. */
import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { z } from "zod";

/** A call of a tool that reached the server. */
export interface ReceivedCall {
  readonly tool: string;
  readonly args: Readonly<Record<string, unknown>>;
}

/** How a server answers, and what it serves TLS with. */
export interface McpServerOptions {
  /** Plain JSON in place of event streams. */
  readonly json?: boolean;
  readonly tls?: { readonly cert: string; readonly key: string };
}

/** A running server with its sessions. */
export class McpTestServer {
  readonly calls: ReceivedCall[] = [];
  readonly requests: { readonly method: string; readonly headers: IncomingMessage["headers"] }[] =
    [];
  /** What the description of fetch_url says; a rug pull changes it. */
  description = "Fetches a page";
  readonly #server: Server;
  readonly #isJson: boolean;
  readonly #sessions = new Map<string, StreamableHTTPServerTransport>();

  private constructor(server: Server, isJson: boolean) {
    this.#server = server;
    this.#isJson = isJson;
    server.on("request", (request, response) => {
      this.requests.push({ method: request.method ?? "", headers: request.headers });
      void this.#serve(request, response).catch(() => response.destroy());
    });
  }

  static async start({ json = false, tls }: McpServerOptions = {}): Promise<McpTestServer> {
    const server = tls === undefined ? createServer() : createTlsServer(tls);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new McpTestServer(server, json);
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async close(): Promise<void> {
    for (const transport of this.#sessions.values()) await transport.close();
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const id = request.headers["mcp-session-id"];
    const known = typeof id === "string" ? this.#sessions.get(id) : undefined;
    if (known !== undefined) {
      await known.handleRequest(request, response);
      return;
    }
    const transport = new StreamableHTTPServerTransport({
      sessionIdGenerator: () => randomUUID(),
      enableJsonResponse: this.#isJson,
      onsessioninitialized: (session) => void this.#sessions.set(session, transport),
      onsessionclosed: (session) => void this.#sessions.delete(session),
    });
    const server = this.#makeServer();
    await server.connect(asTransport(transport));
    await transport.handleRequest(request, response);
  }

  #makeServer(): McpServer {
    const server = new McpServer(
      { name: "test", version: "1.0.0" },
      { capabilities: { logging: {} } },
    );
    const text = (said: string) => ({ content: [{ type: "text" as const, text: said }] });
    const record = (tool: string, args: Readonly<Record<string, unknown>>): void => {
      this.calls.push({ tool, args });
    };
    server.registerTool(
      "fetch_url",
      { description: this.description, inputSchema: { url: z.string() } },
      ({ url }) => {
        record("fetch_url", { url });
        return text(`fetched ${url}`);
      },
    );
    server.registerTool("add", { inputSchema: { a: z.number(), b: z.number() } }, ({ a, b }) => {
      record("add", { a, b });
      return text(String(a + b));
    });
    server.registerTool("exec", { inputSchema: { command: z.string() } }, ({ command }) => {
      record("exec", { command });
      return text("done");
    });
    server.registerTool("count", { inputSchema: { to: z.number() } }, async ({ to }, extra) => {
      for (let at = 1; at <= to; at += 1) {
        await extra.sendNotification({
          method: "notifications/message",
          params: { level: "info", data: at },
        });
      }
      return text("counted");
    });
    server.registerTool("confide", { inputSchema: {} }, async () => {
      const { roots } = await server.server.listRoots();
      return text(roots.map(({ uri }) => uri).join());
    });
    return server;
  }
}

/** The optional members of the SDK's classes are not those that exactOptionalPropertyTypes wants of its interface. */
export function asTransport(transport: object): Transport {
  return transport as Transport;
}

/** The SDK's own client, whose HTTP goes the way that `fetch` takes. */
export class McpTestClient {
  readonly client: Client;
  readonly transport: StreamableHTTPClientTransport;

  private constructor(client: Client, transport: StreamableHTTPClientTransport) {
    this.client = client;
    this.transport = transport;
  }

  static async connect(url: string, fetch: typeof globalThis.fetch): Promise<McpTestClient> {
    const client = new Client(
      { name: "test-agent", version: "1.0.0" },
      { capabilities: { roots: {} } },
    );
    const transport = new StreamableHTTPClientTransport(new URL(url), { fetch });
    await client.connect(asTransport(transport));
    return new McpTestClient(client, transport);
  }

  /** The text of a tool's answer; a refusal is what the SDK throws. */
  async call(name: string, args: Readonly<Record<string, unknown>>): Promise<string> {
    const { content } = await this.client.callTool({ name, arguments: args });
    const [first] = content as readonly { readonly text?: string }[];
    return first?.text ?? "";
  }

  async toolNames(): Promise<string[]> {
    const { tools } = await this.client.listTools();
    return tools.map(({ name }) => name).sort();
  }

  async close(): Promise<void> {
    await this.transport.terminateSession().catch(() => undefined);
    await this.client.close();
  }
}
