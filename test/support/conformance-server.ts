/** An MCP server with the tools, resources and prompts that the conformance suite of the protocol asks for. */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import {
  createServer,
  type IncomingMessage,
  type Server as HttpServer,
  type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";
import { Server } from "@modelcontextprotocol/sdk/server/index.js";
import {
  type EventStore,
  StreamableHTTPServerTransport,
} from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import {
  CallToolRequestSchema,
  type CallToolResult,
  CompleteRequestSchema,
  CreateMessageResultSchema,
  ElicitResultSchema,
  GetPromptRequestSchema,
  isInitializeRequest,
  type JSONRPCMessage,
  ListPromptsRequestSchema,
  ListResourcesRequestSchema,
  ListResourceTemplatesRequestSchema,
  ListToolsRequestSchema,
  ReadResourceRequestSchema,
  SetLevelRequestSchema,
  SubscribeRequestSchema,
  UnsubscribeRequestSchema,
} from "@modelcontextprotocol/sdk/types.js";
import { asTransport } from "./mcp-server.ts";

/** What a tool may do besides returning its result. */
interface Call {
  readonly args: Readonly<Record<string, unknown>>;
  readonly progressToken: string | number | undefined;
  /** A notification beside the response. */
  readonly tell: (method: string, params: Record<string, unknown>) => Promise<void>;
  readonly sample: (prompt: string) => Promise<string>;
  readonly elicit: (
    message: string,
    properties: object,
    required?: readonly string[],
  ) => Promise<string>;
  readonly closeStream: () => void;
}

const dot =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const silence = Buffer.from(
  "524946462400000057415645666d74201000000001000100401f0000401f00000100080064617461 00000000".replace(
    " ",
    "",
  ),
  "hex",
).toString("base64");
const text = (said: string): CallToolResult => ({ content: [{ type: "text", text: said }] });
const image = { type: "image", data: dot, mimeType: "image/png" } as const;
const resource = (uri: string, mimeType: string, said: string) =>
  ({ type: "resource", resource: { uri, mimeType, text: said } }) as const;
const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const titled = (prefix: string, title: string) =>
  ["First", "Second", "Third"].map((word, at) => ({
    const: `${prefix}${at + 1}`,
    title: `${word} ${title}`,
  }));
const options = ["option1", "option2", "option3"];
const enums = {
  untitledSingle: { type: "string", enum: options },
  titledSingle: { type: "string", oneOf: titled("value", "Option") },
  legacyEnum: {
    type: "string",
    enum: ["opt1", "opt2", "opt3"],
    enumNames: ["Option One", "Option Two", "Option Three"],
  },
  untitledMulti: { type: "array", items: { type: "string", enum: options } },
  titledMulti: { type: "array", items: { anyOf: titled("value", "Choice") } },
};
const defaults = {
  name: { type: "string", default: "John Doe" },
  age: { type: "integer", default: 30 },
  score: { type: "number", default: 95.5 },
  status: { type: "string", enum: ["active", "inactive", "pending"], default: "active" },
  verified: { type: "boolean", default: true },
};
const person = { username: { type: "string" }, email: { type: "string" } };

const tools: Readonly<Record<string, (call: Call) => CallToolResult | Promise<CallToolResult>>> = {
  test_simple_text: () => text("This is a simple text response for testing."),
  test_image_content: () => ({ content: [image] }),
  test_audio_content: () => ({
    content: [{ type: "audio", data: silence, mimeType: "audio/wav" }],
  }),
  test_embedded_resource: () => ({
    content: [
      resource("test://embedded-resource", "text/plain", "This is an embedded resource content."),
    ],
  }),
  test_multiple_content_types: () => ({
    content: [
      { type: "text", text: "Multiple content types test:" },
      image,
      resource("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ],
  }),
  test_tool_with_logging: async ({ tell }) => {
    for (const data of [
      "Tool execution started",
      "Tool processing data",
      "Tool execution completed",
    ]) {
      await tell("notifications/message", { level: "info", data });
      await pause(50);
    }
    return text("logged");
  },
  test_error_handling: () => ({
    ...text("This tool intentionally returns an error for testing"),
    isError: true,
  }),
  test_tool_with_progress: async ({ tell, progressToken }) => {
    for (const progress of [0, 50, 100]) {
      if (progressToken !== undefined)
        await tell("notifications/progress", { progressToken, progress, total: 100 });
      await pause(50);
    }
    return text("done");
  },
  test_sampling: async ({ args, sample }) =>
    text(`LLM response: ${await sample(String(args["prompt"]))}`),
  test_elicitation: async ({ args, elicit }) =>
    text(`User response: ${await elicit(String(args["message"]), person, ["username", "email"])}`),
  test_elicitation_sep1034_defaults: async ({ elicit }) =>
    text(`Elicitation completed: ${await elicit("Defaults", defaults)}`),
  test_elicitation_sep1330_enums: async ({ elicit }) =>
    text(`Elicitation completed: ${await elicit("Choices", enums)}`),
  test_reconnection: async ({ closeStream }) => {
    closeStream();
    await pause(100);
    return text("reconnected");
  },
  json_schema_2020_12_tool: () => text("ok"),
};

/** The names of its tools. */
export const toolNames: readonly string[] = Object.keys(tools);

const schemas: Readonly<Record<string, object>> = {
  test_sampling: { properties: { prompt: { type: "string" } }, required: ["prompt"] },
  test_elicitation: { properties: { message: { type: "string" } }, required: ["message"] },
  json_schema_2020_12_tool: {
    $schema: "https://json-schema.org/draft/2020-12/schema",
    $defs: {
      address: {
        type: "object",
        properties: { street: { type: "string" }, city: { type: "string" } },
      },
    },
    properties: { name: { type: "string" }, address: { $ref: "#/$defs/address" } },
    additionalProperties: false,
  },
};

const user = (content: object) => ({ role: "user", content });
const prompts: Readonly<Record<string, (args: Readonly<Record<string, string>>) => object[]>> = {
  test_simple_prompt: () => [user({ type: "text", text: "This is a simple prompt for testing." })],
  test_prompt_with_arguments: ({ arg1, arg2 }) => [
    user({ type: "text", text: `Prompt with arguments: arg1='${arg1}', arg2='${arg2}'` }),
  ],
  test_prompt_with_embedded_resource: ({ resourceUri = "" }) => [
    user(resource(resourceUri, "text/plain", "Embedded resource content for testing.")),
    user({ type: "text", text: "Please process the embedded resource above." }),
  ],
  test_prompt_with_image: () => [
    user(image),
    user({ type: "text", text: "Please analyze the image above." }),
  ],
};
const promptArguments: Readonly<Record<string, readonly string[]>> = {
  test_prompt_with_arguments: ["arg1", "arg2"],
  test_prompt_with_embedded_resource: ["resourceUri"],
};

const resources = [
  { uri: "test://static-text", name: "text", description: "A text", mimeType: "text/plain" },
  { uri: "test://static-binary", name: "image", description: "An image", mimeType: "image/png" },
  {
    uri: "test://watched-resource",
    name: "watched",
    description: "Watched",
    mimeType: "text/plain",
  },
];

function read(uri: string): object {
  const [, id] = /^test:\/\/template\/([^/]+)\/data$/.exec(uri) ?? [];
  if (id !== undefined) {
    const said = JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` });
    return { uri, mimeType: "application/json", text: said };
  }
  if (uri === "test://static-binary") return { uri, mimeType: "image/png", blob: dot };
  return { uri, mimeType: "text/plain", text: "This is the content of the static text resource." };
}

/** One session's server. */
function session(): Server {
  const server = new Server(
    { name: "conformance", version: "1.0.0" },
    {
      capabilities: {
        tools: { listChanged: true },
        resources: { subscribe: true, listChanged: true },
        prompts: { listChanged: true },
        logging: {},
        completions: {},
      },
    },
  );
  server.setRequestHandler(ListToolsRequestSchema, () => ({
    tools: toolNames.map((name) => ({
      name,
      description: `The tool ${name}`,
      inputSchema: { type: "object" as const, properties: {}, ...schemas[name] },
    })),
  }));
  server.setRequestHandler(CallToolRequestSchema, async ({ params }, extra) => {
    const tool = tools[params.name];
    if (tool === undefined) throw new Error(`no tool ${params.name}`);
    return tool({
      args: params.arguments ?? {},
      progressToken: params._meta?.progressToken,
      tell: (method, told) => extra.sendNotification({ method, params: told }),
      sample: async (prompt) => {
        const messages = [
          { role: "user" as const, content: { type: "text" as const, text: prompt } },
        ];
        const asked = {
          method: "sampling/createMessage",
          params: { messages, maxTokens: 100 },
        } as const;
        const { content } = await extra.sendRequest(asked, CreateMessageResultSchema);
        return content.type === "text" ? content.text : content.type;
      },
      elicit: async (message, properties, required = []) => {
        const requestedSchema = { type: "object", properties, required };
        const asked = { method: "elicitation/create", params: { message, requestedSchema } };
        const { action, content } = await extra.sendRequest(asked, ElicitResultSchema);
        return `action=${action}, content=${JSON.stringify(content ?? {})}`;
      },
      closeStream: () => extra.closeSSEStream?.(),
    });
  });
  server.setRequestHandler(ListResourcesRequestSchema, () => ({ resources }));
  server.setRequestHandler(ListResourceTemplatesRequestSchema, () => ({
    resourceTemplates: [
      { uriTemplate: "test://template/{id}/data", name: "template", description: "By id" },
    ],
  }));
  server.setRequestHandler(ReadResourceRequestSchema, ({ params }) => ({
    contents: [read(params.uri)],
  }));
  server.setRequestHandler(SubscribeRequestSchema, () => ({}));
  server.setRequestHandler(UnsubscribeRequestSchema, () => ({}));
  server.setRequestHandler(SetLevelRequestSchema, () => ({}));
  server.setRequestHandler(CompleteRequestSchema, () => ({
    completion: { values: ["paris", "park", "party"], total: 3, hasMore: false },
  }));
  server.setRequestHandler(ListPromptsRequestSchema, () => ({
    prompts: Object.keys(prompts).map((name) => ({
      name,
      description: `The prompt ${name}`,
      arguments: (promptArguments[name] ?? []).map((argument) => ({
        name: argument,
        description: argument,
        required: true,
      })),
    })),
  }));
  server.setRequestHandler(GetPromptRequestSchema, ({ params }) => {
    const prompt = prompts[params.name];
    if (prompt === undefined) throw new Error(`no prompt ${params.name}`);
    return { messages: prompt(params.arguments ?? {}) };
  });
  return server;
}

/** What was sent over streams, so that a client that comes back gets what it missed. */
function memory(): EventStore {
  const events: {
    readonly id: string;
    readonly stream: string;
    readonly message: JSONRPCMessage;
  }[] = [];
  return {
    storeEvent: (stream, message) => {
      const id = String(events.length);
      events.push({ id, stream, message });
      return Promise.resolve(id);
    },
    replayEventsAfter: async (lastId, { send }) => {
      const stream = events[Number(lastId)]?.stream ?? "";
      for (const event of events.slice(Number(lastId) + 1))
        if (event.stream === stream && "jsonrpc" in event.message)
          await send(event.id, event.message);
      return stream;
    },
  };
}

/** The server, over HTTP on loopback. */
export class ConformanceServer {
  readonly #http: HttpServer;
  readonly #sessions = new Map<string, StreamableHTTPServerTransport>();

  private constructor() {
    this.#http = createServer((request, response) => {
      this.#serve(request, response).catch(() => response.destroy());
    });
  }

  static async start(): Promise<ConformanceServer> {
    const made = new ConformanceServer();
    made.#http.listen(0, "127.0.0.1");
    await once(made.#http, "listening");
    return made;
  }

  get port(): number {
    return (this.#http.address() as AddressInfo).port;
  }

  async close(): Promise<void> {
    this.#http.closeAllConnections();
    await new Promise((resolve) => this.#http.close(resolve));
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    // A page of elsewhere that calls a loopback name its own (DNS rebinding).
    const { host = "", origin = `http://${host}` } = request.headers;
    if (![`http://${host}`, origin].every((one) => isKnown(one))) {
      response.writeHead(403).end();
      return;
    }
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body: unknown =
      chunks.length === 0 ? undefined : JSON.parse(Buffer.concat(chunks).toString());
    const id = String(request.headers["mcp-session-id"] ?? "");
    let transport = this.#sessions.get(id);
    if (transport === undefined && id === "" && isInitializeRequest(body)) {
      const made = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        eventStore: memory(),
        retryInterval: 500,
        onsessioninitialized: (name) => void this.#sessions.set(name, made),
      });
      await session().connect(asTransport(made));
      transport = made;
    }
    if (transport === undefined) response.writeHead(id === "" ? 400 : 404).end();
    else await transport.handleRequest(request, response, body);
  }
}

function isKnown(origin: string): boolean {
  const { hostname } = new URL(origin);
  return ["localhost", "127.0.0.1", "api.allowed.test"].includes(hostname);
}
