/**
 * An agent and its tool, for docs/keycloak.md: the agent passes its caller's Authorization on to the tool, through the proxy
 * that HTTP_PROXY names; the tool answers with what the token that reaches it says.
 */
import { createServer, get, type IncomingMessage } from "node:http";

const [agentPort, toolPort] = [portOf("AGENT_PORT", 9000), portOf("TOOL_PORT", 9001)];

const tool = createServer((request, response) => {
  const { aud, azp, sub, scope } = claimsOf(request);
  response.setHeader("Content-Type", "application/json");
  response.end(`${JSON.stringify({ tool: request.headers.host, aud, azp, sub, scope })}\n`);
});

const agent = createServer((request, response) => {
  const { authorization } = request.headers;
  const name = request.url === "/billing" ? "billing" : "weather";
  const url = `http://${name}.example.test:${toolPort}/`;
  const options = authorization === undefined ? {} : { headers: { authorization } };
  get(url, options, (answer) => {
    response.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.pipe(response);
  }).on("error", (error) => response.writeHead(502).end(`${error.message}\n`));
});

tool.listen(toolPort, "127.0.0.1");
agent.listen(agentPort, "127.0.0.1", () => {
  process.stdout.write(`the agent is at http://127.0.0.1:${agentPort}/weather and /billing\n`);
});

function portOf(name: string, usual: number): number {
  return Number(process.env[name] ?? usual);
}

/** The claims of the token, unverified: this tool only shows them. */
function claimsOf(request: IncomingMessage): Readonly<Record<string, unknown>> {
  const payload = request.headers.authorization?.split(".")[1];
  if (payload === undefined) return {};
  return JSON.parse(Buffer.from(payload, "base64url").toString()) as Record<string, unknown>;
}
