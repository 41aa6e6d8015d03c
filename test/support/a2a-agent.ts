/** An agent made with the SDK of A2A: JSON-RPC in the revisions 1.0 and 0.3, streaming included. */
import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { text as readText } from "node:stream/consumers";
import {
  AgentCard,
  SendMessageRequest,
  Task,
  TaskArtifactUpdateEvent,
  TaskStatusUpdateEvent,
} from "@a2a-js/sdk";
import { LegacyJsonRpcTransportHandler } from "@a2a-js/sdk/compat/v0_3/server";
import {
  AgentEvent,
  type AgentExecutor,
  DefaultRequestHandler,
  InMemoryTaskStore,
  JsonRpcTransportHandler,
  ServerCallContext,
} from "@a2a-js/sdk/server";

/** The card of an agent at these addresses. */
export function agentCard(base: string): AgentCard {
  const jsonRpc = { url: `${base}/a2a`, protocolBinding: "JSONRPC", protocolVersion: "1.0" };
  const legacy = { url: `${base}/a2a-legacy`, protocolBinding: "JSONRPC", protocolVersion: "0.3" };
  return AgentCard.fromJSON({
    name: "weather",
    description: "Tells the weather",
    version: "1",
    capabilities: { streaming: true },
    supportedInterfaces: [jsonRpc, legacy],
    defaultInputModes: ["text/plain"],
    defaultOutputModes: ["text/plain"],
    skills: [],
  });
}

type Headers = IncomingMessage["headers"];

/** Answers every message with a task: working, an artifact in two pieces, completed. */
export class WeatherAgent {
  /** What the agent does while it works, e.g. call a tool; gets the fields of the message that it works on. */
  work: (headers: Headers) => Promise<void> = async () => undefined;
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  static async start(): Promise<WeatherAgent> {
    const server = createServer();
    const agent = new WeatherAgent(server);
    server.on("request", (request, response) => {
      agent.handle(request, response).catch(() => response.destroy());
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return agent;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  /** Serves one request; another server may hand its own over. */
  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = await readText(request);
    const isLegacy = request.url === "/a2a-legacy";
    const handler = new DefaultRequestHandler(
      agentCard("http://agent"),
      this.#tasks,
      this.#executor(request.headers),
    );
    const transport = isLegacy
      ? new LegacyJsonRpcTransportHandler(handler)
      : new JsonRpcTransportHandler(handler);
    const requestedVersion = isLegacy ? "0.3" : "1.0";
    const answer = await transport.handle(body, new ServerCallContext({ requestedVersion }));
    if (!(Symbol.asyncIterator in answer)) {
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(answer));
      return;
    }
    response.writeHead(200, { "content-type": "text/event-stream" });
    for await (const event of answer) response.write(`data: ${JSON.stringify(event)}\n\n`);
    response.end();
  }

  readonly #tasks = new InMemoryTaskStore();

  #executor(headers: Headers): AgentExecutor {
    return {
      execute: async ({ taskId, contextId }, bus) => {
        const ids = { taskId, contextId };
        const status = (state: string) =>
          AgentEvent.statusUpdate(TaskStatusUpdateEvent.fromJSON({ ...ids, status: { state } }));
        const artifact = (text: string, append: boolean) =>
          AgentEvent.artifactUpdate(
            TaskArtifactUpdateEvent.fromJSON({
              ...ids,
              append,
              artifact: { artifactId: "a", parts: [{ text }] },
            }),
          );
        const task = { id: taskId, contextId, status: { state: "TASK_STATE_SUBMITTED" } };
        bus.publish(AgentEvent.task(Task.fromJSON(task)));
        bus.publish(status("TASK_STATE_WORKING"));
        await this.work(headers);
        bus.publish(artifact("Sunny ", false));
        bus.publish(artifact("in Bern", true));
        bus.publish(status("TASK_STATE_COMPLETED"));
        bus.finished();
      },
      cancelTask: async () => undefined,
    };
  }
}

/** A message of a user. */
export function userMessage(text: string, contextId?: string): SendMessageRequest {
  return SendMessageRequest.fromJSON({
    message: {
      messageId: randomUUID(),
      role: "ROLE_USER",
      parts: [{ text }],
      ...(contextId === undefined ? {} : { contextId }),
    },
  });
}
