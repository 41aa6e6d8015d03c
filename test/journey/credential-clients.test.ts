/** Real clients with a stand-in, through the bridge: SDKs, git over https, WebSockets with a key in their offer or first message. */
import { execFile, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import type { Server } from "node:net";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Duplex } from "node:stream";
import { createServer as createHttps } from "node:https";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";
import { fetch, ProxyAgent } from "undici";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { eventually, within } from "../support/eventually.ts";
import { StubIdp } from "../support/idp.ts";
import { owner } from "../support/owner.ts";
import { readAll, TlsOrigin } from "../support/tls-origin.ts";

const own = owner();
const host = "stored.test";
const exchanged = "exchanged.test";
const real = "sk-Real_Key12";
const standIn = "stand-in-key";
const issued = "issued-Token12";

let authority: TestAuthority;
let idp: StubIdp;
let origin: TlsOrigin;
let gitOrigin: ReturnType<typeof createHttps>;
let gitRoot: string;
let proxy: BridgeProxy;
let dispatcher: ProxyAgent;
let sockets: WebSocketServer;
let base: string;

interface Arrival {
  readonly request: IncomingMessage;
  readonly messages: string[];
  readonly socket: WebSocket;
}

const arrivals: Arrival[] = [];
const clients: WebSocket[] = [];

const places = [
  { header: "x-api-key" },
  { header: "authorization", paths: ["/v1/**", "/api/**"] },
  { header: "x-goog-api-key", paths: ["/v1beta/**"] },
  { query: "key", paths: ["/v1beta/**"] },
  { basic: "password", paths: ["/*.git/**"] },
  { websocket_protocol: "openai-insecure-api-key.*", paths: ["/realtime"] },
  {
    websocket_protocol: "base64url.bearer.authorization.k8s.io.*",
    encoded: "base64url",
    paths: ["/exec"],
  },
  { websocket_first_message: "/payload/token", paths: ["/graphql"] },
];

function pluginsWith(idpUrl: string): unknown[] {
  return [
    {
      name: "static-inject",
      config: {
        source: "mappings",
        mappings: { [host]: real },
        hosts: [host],
        placeholder: standIn,
        places,
      },
    },
    {
      name: "token-exchange",
      config: {
        token_url: idpUrl,
        identity: { type: "client-secret", client_id: "me", client_secret: "mine" },
        routes: {
          file: "none.yaml",
          rules: [{ host: exchanged, target_audience: "t", places }],
        },
      },
    },
  ];
}

/** `git http-backend` behind a check of its credential, as a smart host has it. */
function serveGit(request: IncomingMessage, response: ServerResponse): void {
  const wanted = `Basic ${Buffer.from(`x-access-token:${real}`).toString("base64")}`;
  if (request.headers.authorization !== wanted) {
    response.writeHead(401, { "www-authenticate": 'Basic realm="git"' }).end();
    return;
  }
  const url = new URL(request.url ?? "/", "https://git.test");
  const backend = spawn("git", ["http-backend"], {
    env: {
      ...process.env,
      GIT_PROJECT_ROOT: gitRoot,
      GIT_HTTP_EXPORT_ALL: "1",
      PATH_INFO: url.pathname,
      QUERY_STRING: url.search.slice(1),
      REQUEST_METHOD: request.method ?? "GET",
      CONTENT_TYPE: request.headers["content-type"] ?? "",
      HTTP_CONTENT_ENCODING: request.headers["content-encoding"] ?? "",
      REMOTE_USER: "agent",
      REMOTE_ADDR: "127.0.0.1",
    },
  });
  request.pipe(backend.stdin);
  const chunks: Buffer[] = [];
  backend.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
  backend.on("close", () => {
    const all = Buffer.concat(chunks);
    const end = all.indexOf("\r\n\r\n");
    let status = 200;
    for (const line of all.subarray(0, end).toString().split("\r\n")) {
      const [name = "", value = ""] = line.split(": ");
      if (name === "Status") status = Number.parseInt(value, 10);
      else response.setHeader(name, value);
    }
    response.statusCode = status;
    response.end(all.subarray(end + 4));
  });
}

beforeAll(async () => {
  authority = await TestAuthority.create();
  idp = await StubIdp.start();
  idp.issue = () => ({ access_token: issued, token_type: "Bearer", expires_in: 300 });
  const certificate = await authority.server([host, exchanged]);
  origin = await TlsOrigin.start(certificate, "both");
  gitOrigin = createHttps(certificate, serveGit);
  gitOrigin.listen(0, "127.0.0.1");
  await once(gitOrigin, "listening");
  sockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: true,
    handleProtocols: (offered) => [...offered].at(-1) ?? false,
  });
  origin.server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    sockets.handleUpgrade(request, socket, head, (accepted) => {
      const messages: string[] = [];
      accepted.on("error", () => undefined);
      accepted.on("message", (data: Buffer) => {
        messages.push(data.toString());
        accepted.send(`you said ${data.toString()}`);
      });
      arrivals.push({ request, messages, socket: accepted });
    });
  });
  proxy = await BridgeProxy.start({
    ports: [origin.port, gitPort()],
    originCa: authority.caPem,
    names: [host, exchanged],
    plugins: pluginsWith(idp.tokenUrl),
  });
  dispatcher = new ProxyAgent({ uri: proxy.url, requestTls: { ca: proxy.ca } });
  base = `https://${origin.at(host)}`;
});
afterEach(() => {
  for (const client of clients.splice(0)) client.terminate();
});
afterAll(async () => {
  await dispatcher?.close();
  await proxy?.close();
  for (const { socket } of arrivals) socket.terminate();
  await origin?.close();
  gitOrigin?.closeAllConnections();
  gitOrigin?.close();
  await idp?.close();
});

function gitPort(): number {
  const address = (gitOrigin as unknown as Server).address();
  return typeof address === "object" && address !== null ? address.port : 0;
}

const proxied = ((url: string, options: object) =>
  fetch(url, { ...options, dispatcher })) as unknown as typeof globalThis.fetch;

/** Answers with JSON that repeats what was sent. */
function echoing(path: string, body: object): void {
  origin.on(path, async (request, response, seen) => {
    await readAll(request, seen);
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ ...body, echoed: { ...request.headers, url: request.url } }));
  });
}

describe("an SDK", () => {
  test("of Anthropic has the stand-in as its key", async () => {
    echoing("/v1/messages", {
      id: "m",
      type: "message",
      role: "assistant",
      model: "c",
      content: [{ type: "text", text: "hi" }],
      stop_reason: "end_turn",
      usage: { input_tokens: 1, output_tokens: 1 },
    });
    const client = new Anthropic({ apiKey: standIn, baseURL: base, fetch: proxied });
    const said = await client.messages.create({
      model: "c",
      max_tokens: 9,
      messages: [{ role: "user", content: "hi" }],
    });
    // Versions of the SDK differ over the field.
    const { "x-api-key": key, authorization } =
      origin.requestsFor("/v1/messages").at(-1)?.headers ?? {};
    expect(key ?? authorization?.slice("Bearer ".length)).toBe(real);
    expect(JSON.stringify(said)).not.toContain(real);
    expect(JSON.stringify(said)).toContain(standIn);
  });

  test("of OpenAI too, also where it is refused", async () => {
    origin.on("/v1/models", async (request, response, seen) => {
      await readAll(request, seen);
      response.writeHead(401, { "content-type": "application/json" });
      const message = `Incorrect API key provided: ${real}.`;
      response.end(JSON.stringify({ error: { message, code: "invalid_api_key" } }));
    });
    const client = new OpenAI({ apiKey: standIn, baseURL: `${base}/v1`, fetch: proxied });
    await expect(client.models.list()).rejects.toThrow(`API key provided: ${standIn}.`);
    const seen = origin.requestsFor("/v1/models").at(-1);
    expect(seen?.headers["authorization"]).toBe(`Bearer ${real}`);
  });

  test("as that of Gemini sends it, in a field or in the URL", async () => {
    const path = "/v1beta/models/g:generateContent";
    echoing(path, { candidates: [] });
    const post = { method: "POST", body: "{}", dispatcher };
    await fetch(base + path, { ...post, headers: { "x-goog-api-key": standIn } });
    expect(origin.requestsFor(path).at(-1)?.headers["x-goog-api-key"]).toBe(real);
    const answer = await fetch(`${base}${path}?key=${standIn}`, post);
    expect(origin.requestsFor(path).at(-1)?.url).toBe(`${path}?key=${real}`);
    expect(await answer.text()).not.toContain(real);
  });

  test("of Kubernetes, with a bearer token, and a path that is not open", async () => {
    echoing("/api/v1/pods", { items: [] });
    echoing("/apis/apps", {});
    const headers = { authorization: `Bearer ${standIn}` };
    expect((await fetch(`${base}/api/v1/pods`, { dispatcher, headers })).status).toBe(200);
    expect(origin.requestsFor("/api/v1/pods").at(-1)?.headers["authorization"]).toBe(
      `Bearer ${real}`,
    );
    expect((await fetch(`${base}/apis/apps`, { dispatcher, headers })).status).toBe(401);
    expect(origin.requestsFor("/apis/apps")).toHaveLength(0);
  });
});

const hasBackend = spawnSync("git", ["http-backend"], { env: { PATH: process.env["PATH"] } });
const isGitHere =
  hasBackend.error === undefined && !/not a git command/.test(String(hasBackend.stderr));

describe.skipIf(!isGitHere)("git over https", () => {
  const run = promisify(execFile);
  test("clones and pushes with the stand-in as its password", async () => {
    gitRoot = await mkdtemp(join(tmpdir(), "git-root-"));
    const work = await mkdtemp(join(tmpdir(), "git-work-"));
    await own({ close: () => rm(gitRoot, { recursive: true, force: true }) });
    await own({ close: () => rm(work, { recursive: true, force: true }) });
    const env = {
      PATH: process.env["PATH"],
      HOME: work,
      GIT_CONFIG_NOSYSTEM: "1",
      GIT_TERMINAL_PROMPT: "0",
      GIT_SSL_CAINFO: proxy.caFile,
      https_proxy: proxy.url,
      GIT_AUTHOR_NAME: "a",
      GIT_AUTHOR_EMAIL: "a@a.test",
      GIT_COMMITTER_NAME: "a",
      GIT_COMMITTER_EMAIL: "a@a.test",
    };
    const git = (cwd: string, ...args: string[]) => run("git", args, { cwd, env });
    await git(gitRoot, "init", "--bare", "-b", "main", "tool.git");
    await git(join(gitRoot, "tool.git"), "config", "http.receivepack", "true");
    const url = `https://x-access-token:${standIn}@${host}:${gitPort()}/tool.git`;
    await git(work, "clone", url, "tool");
    const clone = join(work, "tool");
    await writeFile(join(clone, "a.txt"), "a".repeat(100_000));
    await git(clone, "checkout", "-B", "main");
    await git(clone, "add", ".");
    await git(clone, "commit", "-m", "one");
    await git(clone, "push", "origin", "main");
    await git(work, "clone", url, "again");
    const { stdout } = await git(join(work, "again"), "log", "--oneline");
    expect(stdout).toContain("one");
    await expect(git(work, "clone", url.replace(standIn, "other"), "no")).rejects.toThrow();
    expect(proxy.stderr).not.toContain(real);
  });
});

async function open(at: string, path: string, protocols: string[] = []): Promise<WebSocket> {
  const socket = await proxy.tls(origin.at(at));
  const client = new WebSocket(`wss://${origin.at(at)}${path}`, protocols, {
    createConnection: () => socket,
    perMessageDeflate: true,
  });
  client.on("error", () => undefined);
  clients.push(client);
  return client;
}

async function opened(...args: Parameters<typeof open>): Promise<WebSocket> {
  const client = await open(...args);
  await within("an upgrade", once(client, "open"));
  return client;
}

async function answerTo(client: WebSocket, text: string): Promise<string> {
  const answer = within("an answer", once(client, "message"));
  client.send(text);
  const [data] = (await answer) as [Buffer];
  return data.toString();
}

function latest(): Arrival {
  const arrival = arrivals.at(-1);
  if (arrival === undefined) throw new Error("nobody arrived");
  return arrival;
}

describe.each([
  { at: host, attached: real },
  { at: exchanged, attached: issued },
])("a WebSocket to $at", ({ at, attached }) => {
  test("with the key among its subprotocols, one of which comes back as it was offered", async () => {
    const offered = ["realtime", `openai-insecure-api-key.${standIn}`];
    const client = await opened(at, "/realtime", offered);
    expect(latest().request.headers["sec-websocket-protocol"]?.split(/, */)).toEqual([
      "realtime",
      `openai-insecure-api-key.${attached}`,
    ]);
    // The origin of this test chooses the last one.
    expect(client.protocol).toBe(`openai-insecure-api-key.${standIn}`);
    expect(client.extensions).toBe("");
    const said = await answerTo(client, `was it ${attached}?`);
    expect(said).not.toContain(attached);
    expect(said).toHaveLength(`you said was it ${attached}?`.length);
  });

  test("with a key in base64url", async () => {
    const prefix = "base64url.bearer.authorization.k8s.io.";
    const encoded = (text: string): string => prefix + Buffer.from(text).toString("base64url");
    const client = await opened(at, "/exec", ["v5.channel.k8s.io", encoded(standIn)]);
    expect(latest().request.headers["sec-websocket-protocol"]).toContain(encoded(attached));
    expect(client.protocol).toBe(encoded(standIn));
  });

  test("with the key in its first message, in one frame or in several", async () => {
    for (const isCut of [false, true]) {
      const client = await opened(at, "/graphql");
      const text = (key: string): string =>
        `{"n":1.00, "type":"connection_init","payload":{"token":"${key}","x":"ä"}}`;
      const answer = within("an answer", once(client, "message"));
      if (isCut) {
        client.send(text(standIn).slice(0, 55), { fin: false });
        client.send(text(standIn).slice(55), { fin: true });
      } else client.send(text(standIn));
      const [data] = (await answer) as [Buffer];
      expect(latest().messages).toEqual([text(attached)]);
      expect(data.toString()).not.toContain(attached);
      await answerTo(client, `{"payload":{"token":"${standIn}"}}`);
      expect(latest().messages.at(-1)).toContain(standIn);
    }
  });

  test.each([
    ["without it", '{"type":"connection_init"}'],
    ["with a member twice", `{"payload":{"token":"${standIn}"},"payload":1}`],
    ["that is no JSON", standIn],
  ])("whose first message is one %s is closed with 1008", async (_what, text) => {
    const client = await opened(at, "/graphql");
    const closed = within("a Close frame", once(client, "close"));
    client.send(text);
    expect((await closed)[0]).toBe(1008);
    expect(latest().messages).toEqual([]);
  });
});

test("a WebSocket without its key is refused before its upgrade", async () => {
  const client = await open(host, "/realtime", ["realtime"]);
  const [, response] = (await within("a refusal", once(client, "unexpected-response"))) as [
    unknown,
    IncomingMessage,
  ];
  expect(response.statusCode).toBe(401);
});

test("a hundred at once get their key each, and none another's", async () => {
  echoing("/v1/crowd", {});
  const all = await Promise.all(
    Array.from({ length: 100 }, async (_, index) => {
      const at = index % 2 === 0 ? host : exchanged;
      const url = `https://${origin.at(at)}/v1/crowd?n=${index}`;
      const answer = await fetch(url, { dispatcher, headers: { "x-api-key": standIn } });
      return answer.text();
    }),
  );
  for (const text of all) expect(text).not.toMatch(/Real_Key|issued-Token/);
  for (const { url, headers } of origin.requestsFor("/v1/crowd")) {
    const index = Number(url.split("n=")[1]);
    expect(headers["x-api-key"]).toBe(index % 2 === 0 ? real : issued);
  }
});

test("records have none of it", async () => {
  await eventually(async () => {
    const { text } = await proxy.sessions("/v1/sessions/default");
    return text.includes("credential_injected");
  });
  const { text } = await proxy.sessions("/v1/sessions/default");
  expect(text + proxy.stderr).not.toMatch(/Real_Key|issued-Token/);
});
