/**
 * Tool calls judged by their arguments: `npm run demo:tools`. The official MCP client calls the tools of an MCP server
 * through the proxy with config.yaml. Exits with 1 when a row differs from what the table promises.
 */
import { get } from "node:http";
import { fileURLToPath } from "node:url";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { Transport } from "@modelcontextprotocol/sdk/shared/transport.js";
import { fetch, ProxyAgent } from "undici";
import { startProxy } from "../demo/child-processes.ts";
import { startGateway, startSite } from "./gateway.ts";

const print = (line = ""): void => void process.stdout.write(`${line}\n`);

/** What a row promises. */
type Verdict = "BLOCKED" | "ALLOWED";

interface Outcome {
  readonly verdict: Verdict;
  /** What the agent saw. */
  readonly result: string;
  /** The sentence that a refusal gives to the model. */
  readonly reason?: string;
}

interface Row {
  readonly test: string;
  readonly expected: Verdict;
  run(): Promise<Outcome>;
}

async function callTool(
  client: Client,
  name: string,
  args: Record<string, string>,
): Promise<Outcome> {
  try {
    await client.callTool({ name, arguments: args });
    return { verdict: "ALLOWED", result: "a result of the tool" };
  } catch (error) {
    const { code, message } = error as { readonly code?: number; readonly message: string };
    const reason = message.replace(/^MCP error -?\d+: /, "");
    return { verdict: "BLOCKED", result: `JSON-RPC error ${code ?? "?"}`, reason };
  }
}

/** A request that the agent's own code makes, past every tool: what `curl -x` does. */
function getDirectly(proxyPort: number, url: string): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const { host } = new URL(url);
    get({ host: "127.0.0.1", port: proxyPort, path: url, headers: { host } }, (response) => {
      response.resume();
      const status = response.statusCode ?? 0;
      resolve({ verdict: status === 200 ? "ALLOWED" : "BLOCKED", result: `HTTP ${status}` });
    }).once("error", reject);
  });
}

function rowsOf(client: Client, proxyPort: number, sitePort: number): readonly Row[] {
  const tool = (name: string, argument: string, value: string, expected: Verdict): Row => ({
    test: `${name}("${value}")`,
    expected,
    run: () => callTool(client, name, { [argument]: value }),
  });
  const direct = (url: string, shown: string, expected: Verdict): Row => ({
    test: `GET ${shown} past the tools`,
    expected,
    run: () => getDirectly(proxyPort, url),
  });
  return [
    tool("fetch_url", "url", "https://malicious.com", "BLOCKED"),
    tool("fetch_url", "url", "https://api.weather.gov", "ALLOWED"),
    tool("fetch_url", "url", "http://169.254.169.254/metadata", "BLOCKED"),
    tool("fetch_url", "url", "https://api.weather.gov@malicious.com", "BLOCKED"),
    tool("fetch_url", "url", "https://api.weather.gov.malicious.com", "BLOCKED"),
    tool("read_file", "path", "/work/notes.txt", "ALLOWED"),
    tool("read_file", "path", "/work/../etc/passwd", "BLOCKED"),
    tool("run_command", "command", "id", "BLOCKED"),
    direct("http://evil-site.net/", "http://evil-site.net", "BLOCKED"),
    direct(`http://httpbin.org:${sitePort}/get`, "http://httpbin.org", "ALLOWED"),
  ];
}

async function runRows(rows: readonly Row[]): Promise<{ broken: number; reasons: string[] }> {
  const widths = [52, 10, 34];
  const line = (cells: readonly string[]): void => {
    print(`| ${cells.map((cell, at) => cell.padEnd(widths[at] ?? 0)).join(" | ")} |`);
  };
  line(["Test", "Expected", "Result"]);
  line(widths.map((width) => "-".repeat(width)));
  let broken = 0;
  const reasons: string[] = [];
  for (const row of rows) {
    const { test, expected } = row;
    const { verdict, result, reason } = await row.run();
    const isKept = verdict === expected;
    if (!isKept) broken += 1;
    if (reason !== undefined) reasons.push(reason);
    line([test, expected, `${verdict}, ${result}`.padEnd(32) + (isKept ? " ✓" : " ✗")]);
  }
  return { broken, reasons };
}

async function demo(): Promise<number> {
  const [gateway, site] = [await startGateway(), await startSite()];
  const file = fileURLToPath(new URL("config.yaml", import.meta.url));
  const proxy = await startProxy(file, {
    PROXY_PORT: "0",
    MCP_PORT: String(gateway.port),
    SITE_PORT: String(site.port),
  });
  const dispatcher = new ProxyAgent({
    uri: `http://127.0.0.1:${proxy.ports.forward}`,
    proxyTunnel: false,
  });
  const client = new Client({ name: "agent", version: "1.0.0" });
  try {
    const through: unknown = (url: string, init: object) => fetch(url, { ...init, dispatcher });
    const url = new URL(`http://mcp.gateway.test:${gateway.port}/mcp`);
    const transport: object = new StreamableHTTPClientTransport(url, {
      fetch: through as typeof globalThis.fetch,
    });
    await client.connect(transport as Transport);
    const { broken, reasons } = await runRows(rowsOf(client, proxy.ports.forward, site.port));
    const { tools } = await client.listTools();
    print(`\ntools/list shows the agent: ${tools.map(({ name }) => name).join(", ")}`);
    print(`calls that reached the server: ${gateway.calls.join(", ")}`);
    print(`what the model reads: ${reasons[0] ?? "–"}`);
    return broken;
  } finally {
    await client.close();
    await dispatcher.close();
    await proxy.stop();
    await gateway.close();
    await site.close();
  }
}

print(`
  agent ──▶ forward proxy: mcp-parser, tool-policy, egress-policy ──▶ MCP server
`);
const broken = await demo();
print();
print(
  broken === 0 ? "Every row as promised." : `${broken} rows differ from what the table promises.`,
);
process.exitCode = broken === 0 ? 0 : 1;
