/** Signed requests arrive as they were signed, whatever plugins look at them: through plain HTTP and the bridge. */
import { once } from "node:events";
import { createServer as createHttp, type IncomingMessage, type ServerResponse } from "node:http";
import { createSecureServer } from "node:http2";
import { readFileSync } from "node:fs";
import { type AddressInfo, connect, type Server } from "node:net";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { parse } from "yaml";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { StandInJudge } from "../support/judge.ts";
import { StubIdp } from "../support/idp.ts";
import { inbound, ProxyProcess, settings } from "../support/proxy.ts";
import { StubOpa } from "../support/opa-server.ts";
import {
  awsFault,
  awsPresigned,
  type AwsScope,
  awsSignature,
  awsSigned,
  awsStringToSign,
  dpopFault,
  dpopProved,
  messageFault,
  messageSigned,
  type WireRequest,
} from "../support/signatures.ts";
import { RawClient, type RawResponse } from "../support/http-client.ts";
import { within } from "../support/eventually.ts";

const host = "signed.test";
const keys = { keyId: "AKIDEXAMPLE", secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY" };
const bedrock: AwsScope = { ...keys, region: "us-east-1", service: "bedrock" };
const s3: AwsScope = { ...keys, region: "us-east-1", service: "s3" };
const secret = "shared by both ends";

test("the signatures are those of the specification", () => {
  const date = "20150830T123600Z";
  const example = (request: Partial<WireRequest>, service: string, signed: readonly string[]) => {
    const scope = { ...keys, region: "us-east-1", service };
    const whole = { method: "GET", target: "/", fields: [], body: "", ...request };
    const payload = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    return awsSignature(awsStringToSign(whole, scope, { date, signed, payload }), scope, date);
  };
  const fields = [
    ["Host", "example.amazonaws.com"],
    ["X-Amz-Date", date],
  ] as const;
  expect(example({ fields }, "service", ["host", "x-amz-date"])).toBe(
    "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
  );
  const iam = [
    ["Host", "iam.amazonaws.com"],
    ["Content-Type", "application/x-www-form-urlencoded; charset=utf-8"],
    ["X-Amz-Date", date],
  ] as const;
  const target = "/?Action=ListUsers&Version=2010-05-08";
  expect(example({ fields: iam, target }, "iam", ["content-type", "host", "x-amz-date"])).toBe(
    "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
  );
});

/** A kind of signature: how it is made, and what an origin finds wrong with it. */
interface Kind {
  readonly request: (authority: string) => WireRequest;
  readonly sign: (request: WireRequest, origin: string) => WireRequest | Promise<WireRequest>;
  readonly fault: (
    request: WireRequest,
    origin: string,
  ) => string | undefined | Promise<string | undefined>;
}

const converse = JSON.stringify({ messages: [{ role: "user", content: [{ text: "hello" }] }] });

function made(
  method: string,
  target: string,
  fields: readonly (readonly [string, string])[] = [],
  body = "",
): Kind["request"] {
  return (authority) => ({ method, target, body, fields: [["Host", authority], ...fields] });
}

const json = ["Content-Type", "application/json"] as const;
const aws = (scope: AwsScope): Omit<Kind, "request"> => ({
  sign: (request) => awsSigned(request, scope),
  fault: (request) => awsFault(request, scope),
});
const presigned: Omit<Kind, "request"> = {
  sign: (request) => awsPresigned(request, s3),
  fault: (request) => awsFault(request, s3),
};
const message: Omit<Kind, "request"> = {
  sign: (request) => messageSigned(request, secret),
  fault: (request) => messageFault(request, secret),
};

const kinds: Readonly<Record<string, Kind>> = {
  "a model call of Bedrock": {
    ...aws(bedrock),
    request: made(
      "POST",
      "/model/x-v1%3A0/converse",
      [json, ["Accept-Encoding", "identity"]],
      converse,
    ),
  },
  "a call that asks for gzip": {
    ...aws(bedrock),
    request: made("POST", "/model/y/converse", [json, ["Accept-Encoding", "gzip, br"]], converse),
  },
  "an object of S3": {
    ...aws(s3),
    request: made("DELETE", "/bucket/report%3Bdraft;x//a%2Bb%40c?versionId=%2B%3D&x", [
      ["Accept-Encoding", "identity"],
      ["traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"],
    ]),
  },
  "a host in capitals": {
    ...aws(s3),
    request: (authority) => made("GET", "/x?list-type=2")(authority.toUpperCase()),
  },
  "a presigned URL": {
    ...presigned,
    request: made("GET", "/bucket/a//b%20c;v=1/%7Eme?response-content-type=a%2Fb", [
      ["Accept-Encoding", "gzip"],
    ]),
  },
  "HTTP Message Signatures": {
    ...message,
    request: made("POST", "/mcp/x;y//z%2C?q=%7e", [json, ["Accept-Encoding", "gzip"]], '{"a":1}'),
  },
  "a DPoP proof": {
    sign: dpopProved,
    fault: dpopFault,
    request: made("GET", "/a//%7Ex;v=1/b%2B?c=d", []),
  },
};

let judge: StandInJudge;
let opa: StubOpa;
let authority: TestAuthority;
const servers: Server[] = [];
const proxies: BridgeProxy[] = [];

/** Origins that say whether the signature of what arrived holds. */
async function serve(server: Server, scheme: string): Promise<number> {
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    void answer(request, response, scheme);
  });
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  scheme: string,
): Promise<void> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const raw = request.rawHeaders;
  const fields: [string, string][] = [];
  for (let at = 0; at < raw.length; at += 2) {
    const name = raw[at] ?? "";
    if (name === ":authority") fields.push(["host", raw[at + 1] ?? ""]);
    else if (!name.startsWith(":")) fields.push([name, raw[at + 1] ?? ""]);
  }
  const { method = "", url: target = "" } = request;
  const body = Buffer.concat(chunks).toString();
  const kind = kinds[String(request.headers["x-kind"] ?? "").replaceAll("_", " ")];
  const arrived = { method, target, fields, body };
  const named = fields.find(([name]) => name.toLowerCase() === "host")?.[1] ?? "";
  const fault = kind === undefined ? "no kind" : await kind.fault(arrived, `${scheme}://${named}`);
  const said = fault ?? "verified";
  const isZipped = String(request.headers["accept-encoding"]).includes("gzip");
  response.setHeader("content-type", "application/json");
  if (isZipped) response.setHeader("content-encoding", "gzip");
  const text = JSON.stringify({ said });
  response.end(isZipped ? gzipSync(text) : text);
}

const ports = { http: 0, https: 0 };
let chains: Readonly<Record<string, readonly unknown[]>> = {};

beforeAll(async () => {
  authority = await TestAuthority.create();
  ports.http = await serve(createHttp(), "http");
  const certificate = await authority.server([host]);
  ports.https = await serve(createSecureServer({ ...certificate, allowHTTP1: true }), "https");
  judge = await StandInJudge.start();
  opa = await StubOpa.start();
  opa.answer = () => ({ result: true });
  chains = chainsOf();
});
afterAll(async () => {
  await Promise.all(proxies.map((proxy) => proxy.close()));
  for (const server of servers) server.close();
  await judge?.close();
  await opa?.close();
});

function chainsOf(): Readonly<Record<string, readonly unknown[]>> {
  const endpoint = { host, ports: [ports.http, ports.https], protocol: "rest", access: "full" };
  const egress = {
    name: "egress-policy",
    config: { network_policies: { all: { endpoints: [{ ...endpoint, enforcement: "enforce" }] } } },
  };
  const asked = { name: "opa", config: { server_url: opa.url, include: ["inference.completion"] } };
  const tools = { name: "tool-policy", config: { servers: [{ name: "s", rules: [] }] } };
  const judged = {
    name: "ibac",
    config: { judge_endpoint: judge.url, judge_model: "judge", no_intent_policy: "allow" },
  };
  const exchange = {
    name: "token-exchange",
    config: {
      token_url: "http://127.0.0.1:9/token",
      identity: { type: "client-secret", client_id: "c", client_secret: "s" },
      no_token_policy: "deny",
      routes: { file: "/nowhere.yaml", rules: [{ host: "other.test" }] },
    },
  };
  const inject = {
    name: "static-inject",
    config: { source: "mappings", mappings: { "other.test": "x" }, hosts: ["other.test"] },
  };
  const parsers = ["mcp-parser", "a2a-parser", "inference-parser"];
  return {
    "egress-policy": [egress],
    opa: [asked],
    "mcp-parser": ["mcp-parser"],
    "a2a-parser": ["a2a-parser"],
    "inference-parser": ["inference-parser"],
    "tool-policy": [
      "mcp-parser",
      { ...tools, config: { ...tools.config, other_servers: "ignore" } },
    ],
    ibac: ["mcp-parser", "inference-parser", judged],
    "token-exchange": [exchange],
    "static-inject": [inject],
    "all of them": [egress, ...parsers, asked, judged, exchange, inject],
    "examples/judged-sidecar": exampleChain("judged-sidecar", {
      "tools.example.test:${TOOLS_PORT}": `${host}:${ports.http}`,
      "llm.example.test:${LLM_PORT}": `${host}:${ports.https}`,
      "agent_llm_host: llm.example.test": `agent_llm_host: ${host}`,
      "${JUDGE_URL}": judge.url,
    }),
    "examples/mcp-tool-policy": exampleChain("mcp-tool-policy", {
      "mcp.gateway.test:${MCP_PORT}": `${host}:${ports.http}`,
      "httpbin.org:${SITE_PORT}": `${host}:${ports.https}`,
    }),
    "examples/corporate-proxy": exampleChain("corporate-proxy", { "*.example.test": host }),
  };
}

/** The outbound chain of an example, with the origins of this test in place of its own. */
function exampleChain(name: string, names: Readonly<Record<string, string>>): readonly unknown[] {
  let text = readFileSync(`examples/${name}/config.yaml`, "utf8");
  for (const [theirs, ours] of Object.entries(names)) text = text.replaceAll(theirs, ours);
  const file = parse(text) as {
    readonly pipeline: { readonly outbound: { readonly plugins: readonly unknown[] } };
  };
  return file.pipeline.outbound.plugins;
}

const names = [
  "egress-policy",
  "opa",
  "mcp-parser",
  "a2a-parser",
  "inference-parser",
  "tool-policy",
  "ibac",
  "token-exchange",
  "static-inject",
  "all of them",
  "examples/judged-sidecar",
  "examples/mcp-tool-policy",
  "examples/corporate-proxy",
] as const;

const head = ({ method, fields, body }: WireRequest, target: string): string =>
  `${method} ${target} HTTP/1.1\r\n${fields.map(([name, value]) => `${name}: ${value}\r\n`).join("")}Content-Length: ${body.length}\r\n\r\n${body}`;

/** Ways to the origin: what the client has to write, and what comes back. */
const ways: Readonly<
  Record<
    string,
    {
      scheme: "http" | "https";
      send: (proxy: BridgeProxy, request: WireRequest, authority: string) => Promise<string>;
    }
  >
> = {
  "plain HTTP": {
    scheme: "http",
    send: async (proxy, request, at) => {
      const wire = new RawClient(await proxy.dial());
      wire.send(head(request, `http://${at}${request.target}`));
      return said(await wire.response());
    },
  },
  "the bridge, HTTP/1.1": {
    scheme: "https",
    send: async (proxy, request, at) => {
      const wire = new RawClient(await proxy.tls(at));
      wire.send(head(request, request.target));
      return said(await wire.response());
    },
  },
  "the bridge, HTTP/2": {
    scheme: "https",
    send: async (proxy, { method, target, fields, body }, at) => {
      const session = await proxy.http2(at);
      try {
        const named = new Map(fields.map(([name, value]) => [name.toLowerCase(), value]));
        const pseudo = { ":method": method, ":path": target, ":authority": named.get("host") };
        named.delete("host");
        const stream = session.request(
          { ...pseudo, ...Object.fromEntries(named) },
          { endStream: body === "" },
        );
        const chunks: Buffer[] = [];
        stream.on("data", (chunk: Buffer) => chunks.push(chunk));
        if (body !== "") stream.end(body);
        const [fieldsBack] = (await within("a response", once(stream, "response"))) as [
          Readonly<Record<string, unknown>>,
        ];
        await within("its end", once(stream, "end"));
        const encoding = fieldsBack["content-encoding"];
        return text(Buffer.concat(chunks), typeof encoding === "string" ? encoding : undefined);
      } finally {
        session.destroy();
      }
    },
  },
};

function said(answer: RawResponse): string {
  return text(answer.body, answer.header("content-encoding"));
}

function text(body: Buffer, encoding: string | undefined): string {
  const clear = (encoding === "gzip" ? gunzipSync(body) : body).toString();
  const parsed = JSON.parse(clear) as { readonly said?: string };
  return parsed.said ?? clear;
}

describe.each(names)("behind %s", (name) => {
  let proxy: BridgeProxy;
  beforeAll(async () => {
    const isTraced = name === "all of them";
    proxy = await BridgeProxy.start({
      ports: [ports.https],
      originCa: authority.caPem,
      names: [host],
      plugins: chains[name] ?? [],
      ...(isTraced ? { file: { telemetry: { otlp: { endpoint: "http://127.0.0.1:9" } } } } : {}),
    });
    proxies.push(proxy);
  });

  test.each(Object.keys(ways))("what is signed arrives through %s", async (way) => {
    const { scheme, send } = ways[way] ?? { scheme: "http", send: () => Promise.resolve("") };
    const at = `${host}:${ports[scheme]}`;
    const found: Record<string, string> = {};
    for (const [what, kind] of Object.entries(kinds)) {
      const { fields, ...rest } = kind.request(at);
      const request = {
        ...rest,
        fields: [...fields, ["X-Kind", what.replaceAll(" ", "_")] as const],
      };
      found[what] = await send(proxy, await kind.sign(request, `${scheme}://${at}`), at);
    }
    expect(found).toEqual(Object.fromEntries(Object.keys(kinds).map((what) => [what, "verified"])));
  });
});

test("behind jwt-validation and parsers, inbound, too", async () => {
  const idp = await StubIdp.start();
  const at = `127.0.0.1:${ports.http}`;
  const proxy = await ProxyProcess.start(
    settings({
      listener: { reverse_proxy_backend: `http://${at}` },
      ...inbound(
        {
          name: "jwt-validation",
          config: { issuer: idp.issuer, jwks_url: idp.jwksUrl, audience: "agent" },
        },
        "mcp-parser",
        "a2a-parser",
        { name: "opa", config: { server_url: opa.url } },
      ),
    }),
  );
  try {
    const bearer = `Bearer ${await idp.token()}`;
    for (const what of ["a presigned URL", "HTTP Message Signatures"] as const) {
      const kind = kinds[what];
      if (kind === undefined) throw new Error(what);
      const { fields, ...rest } = kind.request(at);
      const request = {
        ...rest,
        fields: [...fields, ["X-Kind", what.replaceAll(" ", "_")] as const],
      };
      const signed = await kind.sign(request, `http://${at}`);
      const socket = connect(proxy.reverse);
      const wire = new RawClient(socket);
      wire.send(
        head({ ...signed, fields: [...signed.fields, ["Authorization", bearer]] }, signed.target),
      );
      expect(said(await wire.response()), what).toBe("verified");
      socket.destroy();
    }
  } finally {
    await proxy.close();
    await idp.close();
  }
});
