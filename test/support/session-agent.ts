/** An agent that serves several users at once: it reads A2A messages and calls out on behalf of whoever asked. */
import { Agent, createServer, type IncomingMessage, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Address } from "./http-client.ts";

/** How the agent lets its calls be tied to the message that caused them. */
export type Propagation = "traceparent" | "authorization" | "x-conversation" | "nothing";

/** What one call needs. */
export interface Call {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

/** An answer of {@link ask}. */
export interface Asked {
  readonly status: number;
  readonly body: string;
}

const agent = new Agent({ keepAlive: true, maxSockets: 64 });

/** One request to an address; `target` may be a path, or a URL for a forward proxy. */
export function ask(address: Address, target: string, call: Call = {}): Promise<Asked> {
  return new Promise((resolve, reject) => {
    const { method = "GET", headers = {}, body } = call;
    const host = URL.canParse(target) ? new URL(target).host : `${address.host}:${address.port}`;
    const sent = request(
      { ...address, path: target, method, agent, headers: { ...headers, host } },
      (response) => {
        textOf(response).then(
          (text) => resolve({ status: response.statusCode ?? 0, body: text }),
          reject,
        );
      },
    );
    sent.on("error", reject);
    sent.end(body);
  });
}

/** The text of an A2A message. */
export function a2aMessage(text: string, contextId?: string): string {
  return JSON.stringify({
    jsonrpc: "2.0",
    id: 1,
    method: "message/send",
    params: {
      message: {
        kind: "message",
        role: "user",
        messageId: "m",
        parts: [{ kind: "text", text }],
        ...(contextId === undefined ? {} : { contextId }),
      },
    },
  });
}

async function textOf(message: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of message) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}

interface Said {
  readonly params: {
    readonly message: {
      readonly contextId?: string;
      readonly parts: readonly { readonly text: string }[];
    };
  };
}

/** The agent's server. The words of a message are `USER TURN`; the answer names the conversation `ctx-USER`. */
export class SessionAgent {
  readonly #server: Server;
  /** Set once the proxy is there. */
  proxy: Address = { host: "127.0.0.1", port: 0 };
  propagation: Propagation = "traceparent";
  /** What it calls, with the user's name and the turn put behind. */
  tools: readonly string[] = [];
  /** The calls' bodies: MCP tool calls. */
  isMcp = false;

  private constructor(server: Server) {
    this.#server = server;
    server.on("request", (incoming: IncomingMessage, response) => {
      void this.#serve(incoming).then((body) => {
        response.writeHead(200, { "Content-Type": "application/json" });
        response.end(body);
      });
    });
  }

  static async start(): Promise<SessionAgent> {
    const server = createServer();
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    return new SessionAgent(server);
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  close(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }

  async #serve(incoming: IncomingMessage): Promise<string> {
    const text = await textOf(incoming);
    if (text === "") return "{}";
    const { message } = (JSON.parse(text) as Said).params;
    const [user = "", turn = ""] = (message.parts[0]?.text ?? "").split(" ");
    const mark = incoming.headers[this.propagation];
    const headers: Record<string, string> =
      typeof mark === "string" ? { [this.propagation]: mark } : {};
    for (const [index, tool] of this.tools.entries()) {
      const id = `${turn}-${index}`;
      await ask(this.proxy, `${tool}/${user}/${id}`, this.#call(headers, user, id));
    }
    const contextId = message.contextId ?? `ctx-${user}`;
    const result = {
      kind: "task",
      id: `task-${user}-${turn}`,
      contextId,
      status: { state: "completed" },
    };
    return JSON.stringify({ jsonrpc: "2.0", id: 1, result });
  }

  #call(headers: Readonly<Record<string, string>>, user: string, id: string): Call {
    if (!this.isMcp) return { headers };
    const params = { name: "look-up", arguments: { user } };
    return {
      method: "POST",
      headers: { ...headers, "Content-Type": "application/json" },
      body: JSON.stringify({ jsonrpc: "2.0", id, method: "tools/call", params }),
    };
  }
}
