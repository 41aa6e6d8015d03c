/**
 * The agent, a process of its own that knows nothing of tokens, audiences or proxies: it passes on the credential of
 * its caller and calls services by name. HTTP_PROXY in its environment is what sends its calls through the proxy.
 */
import { createServer, get, type IncomingMessage, type ServerResponse } from "node:http";

const port = Number(process.env["AGENT_PORT"]);
const services = JSON.parse(process.env["AGENT_SERVICES"] ?? "{}") as Record<string, string>;

function serve(request: IncomingMessage, response: ServerResponse): void {
  const name = request.url?.replace(/^\/ask\//, "") ?? "";
  const url = services[name];
  if (url === undefined) {
    response.writeHead(404).end(`ask one of ${Object.keys(services).join(", ")}\n`);
    return;
  }
  const { authorization } = request.headers;
  const headers = authorization === undefined ? {} : { authorization };
  get(url, { headers }, (answer) => {
    response.writeHead(answer.statusCode ?? 502, {
      "Content-Type": answer.headers["content-type"] ?? "text/plain",
    });
    answer.pipe(response);
  }).on("error", (error) => response.writeHead(502).end(`${error.message}\n`));
}

const server = createServer(serve);
server.on("error", (error) => {
  process.stderr.write(`the agent cannot listen on port ${port}: ${error.message}\n`);
  process.exitCode = 1;
  process.disconnect?.();
});
server.listen(port, "127.0.0.1", () => process.send?.("ready"));
// The demo is gone: so is the reason to be here.
process.on("disconnect", () => process.exit());
