/** An MCP client for the conformance suite of the protocol, as a program: `node conformance-client.ts URL`. */
import {
  UnauthorizedError,
  type OAuthClientProvider,
} from "@modelcontextprotocol/sdk/client/auth.js";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type {
  OAuthClientInformationMixed,
  OAuthTokens,
} from "@modelcontextprotocol/sdk/shared/auth.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";
import { asTransport } from "./mcp-server.ts";

const url = new URL(process.argv[2] ?? "");
const scenario = process.env["MCP_CONFORMANCE_SCENARIO"] ?? "";
const context = JSON.parse(process.env["MCP_CONFORMANCE_CONTEXT"] ?? "{}") as Readonly<
  Record<string, string>
>;

/** A user who agrees at once: the code is in the redirect. */
class Agreeing implements OAuthClientProvider {
  readonly redirectUrl = "http://localhost:3000/callback";
  readonly clientMetadataUrl = "https://conformance-test.local/client-metadata.json";
  readonly clientMetadata = { client_name: "conformance", redirect_uris: [this.redirectUrl] };
  code = "";
  #client: OAuthClientInformationMixed | undefined =
    context["client_id"] === undefined
      ? undefined
      : { client_id: context["client_id"], client_secret: context["client_secret"] };
  #tokens: OAuthTokens | undefined;
  #verifier = "";

  clientInformation(): OAuthClientInformationMixed | undefined {
    return this.#client;
  }

  saveClientInformation(client: OAuthClientInformationMixed): void {
    this.#client = client;
  }

  tokens(): OAuthTokens | undefined {
    return this.#tokens;
  }

  saveTokens(tokens: OAuthTokens): void {
    this.#tokens = tokens;
  }

  async redirectToAuthorization(to: URL): Promise<void> {
    const answer = await fetch(to, { redirect: "manual" });
    this.code = new URL(answer.headers.get("location") ?? "").searchParams.get("code") ?? "";
  }

  saveCodeVerifier(verifier: string): void {
    this.#verifier = verifier;
  }

  codeVerifier(): string {
    return this.#verifier;
  }
}

const authProvider = new Agreeing();

/** Connects, lists the tools and calls each; false where a user has to agree first. */
async function tryOnce(): Promise<boolean> {
  const client = new Client(
    { name: "conformance", version: "1.0.0" },
    { capabilities: { elicitation: { form: { applyDefaults: true } } } },
  );
  client.setRequestHandler(ElicitRequestSchema, () => ({ action: "accept", content: {} }));
  const transport = new StreamableHTTPClientTransport(
    url,
    scenario.startsWith("auth/") ? { authProvider } : {},
  );
  try {
    await client.connect(asTransport(transport));
    const { tools } = await client.listTools();
    for (const { name } of tools) await client.callTool({ name, arguments: { a: 5, b: 3 } });
    return true;
  } catch (error) {
    if (!(error instanceof UnauthorizedError)) throw error;
    await transport.finishAuth(authProvider.code);
    return false;
  } finally {
    await client.close();
  }
}

let isDone = false;
for (let tries = 0; tries < 4 && !isDone; tries += 1) isDone = await tryOnce();
process.exitCode = isDone ? 0 : 1;
