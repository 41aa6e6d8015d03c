/** aws-sigv4: what agents sign with stand-in keys arrives signed with real ones, whatever carries it, or does not leave. */
import {
  DeleteObjectCommand,
  GetObjectCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  PutObjectCommand,
} from "@aws-sdk/client-s3";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { beforeAll, describe, expect, test } from "vitest";
import { type HandSigned, handSigned, s3Through, standIn } from "../support/aws-agent.ts";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority, temporaryDirectory } from "../support/certs.ts";
import { within } from "../support/eventually.ts";
import { RawClient, type RawResponse } from "../support/http-client.ts";
import { ObjectStore } from "../support/object-store.ts";
import { owner } from "../support/owner.ts";

const own = owner();
const real = {
  accessKeyId: "AKIAREALREALREAL0001",
  secret: "real+secret/key",
  sessionToken: "real-session-token//==",
} as const;
const host = "s3.eu-central-1.amazonaws.com";
const bedrock = "bedrock-runtime.eu-central-1.amazonaws.com";
const everywhere = "abc.mrap.accesspoint.s3-global.amazonaws.com";
const names = [host, bedrock, everywhere, "minio.test", "bucket.s3.eu-central-1.amazonaws.com"];

let authority: TestAuthority;
let secure: ObjectStore;
let plain: ObjectStore;
let proxy: BridgeProxy;
let folder: string;

const keyOf = (credentials: unknown) => ({
  access_key_id: standIn.accessKeyId,
  secret_access_key: standIn.secretAccessKey,
  credentials,
});
const shared = () => ({
  source: "shared_file",
  file: join(folder, "credentials"),
  profile: "prod",
});
const anyHost = { rules: [{ host: "**.amazonaws.com" }] };

function plugin(config: Readonly<Record<string, unknown>> = {}) {
  return {
    name: "aws-sigv4",
    config: { keys: [keyOf(shared())], routes: anyHost, allow_plaintext: true, ...config },
  };
}

function start(
  plugins: readonly unknown[],
  file: Readonly<Record<string, unknown>> = {},
  otherwise: "allow" | "deny" = "deny",
) {
  return BridgeProxy.start({
    ports: [secure.port],
    originCa: authority.caPem,
    names,
    plugins,
    otherwise,
    file,
  });
}

beforeAll(async () => {
  folder = await temporaryDirectory();
  const text = `[default]\naws_access_key_id = other\naws_secret_access_key = other\n[prod]\naws_access_key_id = ${real.accessKeyId}\naws_secret_access_key = ${real.secret}\naws_session_token = ${real.sessionToken}\n`;
  await writeFile(join(folder, "credentials"), text);
  authority = await TestAuthority.create();
  secure = await own(ObjectStore.start([real], await authority.server(names)));
  plain = await own(ObjectStore.start([real]));
  proxy = await own(start([plugin()], {}, "allow"));
});

/** The SDK's own signer, as far as it makes URLs. */
interface Presigner {
  presign(
    request: object,
    options: { readonly expiresIn: number },
  ): Promise<{ readonly path: string; readonly query: Readonly<Record<string, string>> }>;
}

const endpoint = () => `https://${host}:${secure.port}`;

describe("the SDK for JavaScript", () => {
  const odd = [
    "plain.txt",
    "a b+c&d=e.txt",
    "path//twice/./dot/../up",
    "ünï-日本語",
    "quo'te\"(and)*[x]!~",
    "per%25cent%20",
    ":@;,?#",
  ];

  test.each(odd)("puts, reads and removes %j", async (key) => {
    const client = s3Through(proxy, endpoint());
    const Body = `content of ${key}`;
    await client.send(new PutObjectCommand({ Bucket: "b", Key: key, Body }));
    const got = await client.send(new GetObjectCommand({ Bucket: "b", Key: key }));
    expect(await got.Body?.transformToString()).toBe(Body);
    await client.send(new HeadObjectCommand({ Bucket: "b", Key: key }));
    const listed = await client.send(
      new ListObjectsV2Command({ Bucket: "b", Prefix: key, Delimiter: "/", StartAfter: "~ +&=" }),
    );
    expect(listed.Prefix).toBe(key);
    expect(listed.Contents?.map((object) => object.Key)).toContain(key);
    await client.send(new DeleteObjectCommand({ Bucket: "b", Key: key }));
    expect(secure.served.slice(-5).map(({ verdict }) => verdict.kind)).toEqual(
      Array.from({ length: 5 }, () => "right"),
    );
    client.destroy();
  });

  test("streams a body with a checksum behind it", async () => {
    const client = s3Through(proxy, endpoint());
    const parts = Array.from({ length: 40 }, (_, at) => Buffer.alloc(50_000, at));
    const Body = Readable.from(parts);
    await client.send(
      new PutObjectCommand({ Bucket: "b", Key: "streamed", Body, ContentLength: 2_000_000 }),
    );
    expect(secure.last?.verdict).toMatchObject({
      kind: "right",
      trailers: { "x-amz-checksum-crc32": expect.any(String) as unknown },
    });
    expect(secure.objects.get("/b/streamed")).toEqual(Buffer.concat(parts));
    client.destroy();
  });

  test("presigns a URL, which keeps its end", async () => {
    const client = s3Through(proxy, endpoint());
    const signer = (await client.config.signer()) as unknown as Presigner;
    secure.objects.set("/b/a b", Buffer.from("presigned"));
    const url = await signer.presign(
      {
        method: "GET",
        protocol: "https:",
        hostname: host,
        port: secure.port,
        path: "/b/a%20b",
        query: { "response-content-type": "text/x y" },
        headers: {
          host: `${host}:${secure.port}`,
          "x-amz-content-sha256": "UNSIGNED-PAYLOAD",
        },
      },
      { expiresIn: 77 },
    );
    const query = new URLSearchParams(url.query).toString().replaceAll("+", "%20");
    const answer = await proxy.get(`${host}:${secure.port}`, `${url.path}?${query}`);
    expect(answer.text).toBe("presigned");
    const target = secure.last?.request.target ?? "";
    expect(target).toContain("X-Amz-Expires=77");
    expect(target).not.toContain(standIn.accessKeyId);
  });

  test("a hundred at once", async () => {
    const client = s3Through(proxy, endpoint());
    await Promise.all(
      Array.from({ length: 100 }, async (_, at) => {
        const Body = Buffer.alloc(10_000, at);
        await client.send(new PutObjectCommand({ Bucket: "many", Key: `k${at}`, Body }));
        const got = await client.send(new GetObjectCommand({ Bucket: "many", Key: `k${at}` }));
        expect(Buffer.from((await got.Body?.transformToByteArray()) ?? [])).toEqual(Body);
      }),
    );
    client.destroy();
  });
});

/** Ways to an origin: what the client writes, and what comes back. */
type Send = (
  request: HandSigned,
  to?: BridgeProxy,
) => Promise<RawResponse | { status: number; text: string }>;

function head(
  request: HandSigned,
  target: string,
  fields: Readonly<Record<string, string>>,
  length: number,
): string {
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${request.method} ${target} HTTP/1.1\r\n${lines.join("")}Content-Length: ${length}\r\n\r\n`;
}

async function over(wire: RawClient, request: HandSigned, target: string): Promise<RawResponse> {
  const { fields, body } = handSigned(request);
  wire.send(head(request, target, fields, body.length)).send(body);
  const response = await wire.response();
  wire.close();
  return response;
}

const ways: Readonly<Record<string, { readonly store: () => ObjectStore; readonly send: Send }>> = {
  "absolute form": {
    store: () => plain,
    send: async (request, to = proxy) =>
      over(new RawClient(await to.dial()), request, `http://${request.host}${request.path}`),
  },
  "plain HTTP in CONNECT": {
    store: () => plain,
    send: async (request, to = proxy) =>
      over(new RawClient(await to.tunnel(request.host)), request, request.path),
  },
  "the bridge, HTTP/1.1": {
    store: () => secure,
    send: async (request, to = proxy) =>
      over(new RawClient(await to.tls(request.host)), request, request.path),
  },
  "the bridge, HTTP/2": {
    store: () => secure,
    send: async (request, to = proxy) => {
      const session = await to.http2(request.host);
      try {
        const { fields, body } = handSigned(request);
        const { host: named, ...rest } = fields;
        const stream = session.request({
          ":method": request.method,
          ":path": request.path,
          ":authority": named ?? "",
          ...rest,
          ...(body.length === 0 ? {} : { "content-length": String(body.length) }),
        });
        if (!stream.writableEnded) stream.end(body);
        const chunks: Buffer[] = [];
        stream.on("data", (chunk: Buffer) => chunks.push(chunk));
        const [back] = (await within("a response", once(stream, "response"))) as [
          Record<string, unknown>,
        ];
        if (!stream.readableEnded) await within("its end", once(stream, "end"));
        return { status: Number(back[":status"]), text: Buffer.concat(chunks).toString() };
      } finally {
        session.destroy();
      }
    },
  },
};

const put: HandSigned = {
  method: "PUT",
  host,
  path: "/b/k",
  service: "s3",
  region: "eu-central-1",
};
const data = Buffer.alloc(300_000, "0123456789abcdef");
const kinds: Readonly<Record<string, HandSigned>> = {
  "a hash": { ...put, body: data },
  "no body": { ...put, method: "DELETE" },
  "signed chunks": { ...put, body: data, chunks: [65_536, 65_536, 131_072, 37_856] },
  "signed chunks and a trailer": { ...put, body: data, chunks: [300_000], hasTrailer: true },
  "signed chunks of nothing": { ...put, chunks: [] },
  "Version 4A": {
    ...put,
    host: everywhere,
    region: "*",
    algorithm: "AWS4-ECDSA-P256-SHA256",
    body: data,
  },
  "Version 4A in chunks, with a trailer": {
    ...put,
    host: everywhere,
    region: "*",
    algorithm: "AWS4-ECDSA-P256-SHA256",
    body: data,
    chunks: [100_000, 200_000],
    hasTrailer: true,
  },
  "a JSON service, whose hash is in no field": {
    method: "POST",
    host: bedrock,
    path: "/model/anthropic.claude-v2%3A1/invoke",
    service: "bedrock",
    region: "eu-central-1",
    fields: { "content-type": "application/json", "x-amz-target": "X.Y" },
    body: Buffer.from('{"a":1}'),
    isHashHidden: true,
  },
  "an event stream": {
    method: "POST",
    host: bedrock,
    path: "/model/m/invoke-with-response-stream",
    service: "bedrock",
    region: "eu-central-1",
    body: Buffer.from("{}"),
  },
};

describe.each(Object.keys(ways))("%s", (way) => {
  test.each(Object.keys(kinds))("%s", async (what) => {
    const { store, send } = ways[way] as (typeof ways)[string];
    const kind = kinds[what] as HandSigned;
    const at = store();
    const answer = await send({ ...kind, host: `${kind.host}:${at.port}` });
    expect(at.last?.verdict).toMatchObject({ kind: "right", service: kind.service });
    expect([200, 204]).toContain(answer.status);
    const verdict = at.last?.verdict;
    if (verdict?.kind === "right") expect(verdict.body).toEqual(kind.body ?? Buffer.alloc(0));
  });

  test("what is signed wrongly is refused, and nothing leaves", async () => {
    const { store, send } = ways[way] as (typeof ways)[string];
    const at = store();
    const base = { ...put, host: `${host}:${at.port}`, body: Buffer.from("x") };
    const other = { accessKeyId: standIn.accessKeyId, secretAccessKey: "another" };
    const cases: Readonly<Record<string, HandSigned>> = {
      "aws-sigv4.mismatch": { ...base, keys: other },
      "aws-sigv4.unknown-key": {
        ...base,
        keys: { ...standIn, accessKeyId: "AKIAOTHEROTHEROTHER1" },
      },
      "aws-sigv4.scope": { ...base, region: "us-east-1" },
      "aws-sigv4.skew": { ...base, time: "20200101T000000Z" },
      "aws-sigv4.malformed": {
        ...base,
        fields: { "x-amz-content-sha256": "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD" },
      },
      "aws-sigv4.unsupported": {
        ...base,
        fields: { "x-amz-content-sha256": "STREAMING-AWS4-HMAC-SHA256-EVENTS" },
      },
    };
    const before = at.served.length;
    for (const [code, request] of Object.entries(cases)) {
      const answer = await send(request);
      expect(JSON.parse(answer.text), code).toMatchObject({ error: code, plugin: "aws-sigv4" });
    }
    const service = await send({ ...base, service: "dynamodb" });
    expect(JSON.parse(service.text)).toMatchObject({ error: "aws-sigv4.scope" });
    expect(at.served).toHaveLength(before);
  });
});

test("a chunk that is not the signed one ends the request, and the origin gets no whole body", async () => {
  const wire = new RawClient(await proxy.tls(`${host}:${secure.port}`));
  const request = {
    ...put,
    host: `${host}:${secure.port}`,
    body: data,
    chunks: [100_000, 200_000],
  };
  const { fields, body } = handSigned(request);
  const other = Buffer.from(body);
  other[150_000] = 0x58;
  const before = secure.served.length;
  wire.send(head(request, request.path, fields, body.length)).send(other);
  const answer = await wire.response();
  expect(answer.status).toBe(403);
  expect(answer.text).toContain("stand-in key");
  expect(secure.served).toHaveLength(before);
});

test("a chunk that is too large to be held names its key", async () => {
  const wire = new RawClient(await proxy.tls(`${host}:${secure.port}`));
  const body = Buffer.alloc(2_000_000);
  const request = { ...put, host: `${host}:${secure.port}`, body, chunks: [2_000_000] };
  const signed = handSigned(request);
  wire.send(head(request, request.path, signed.fields, signed.body.length)).send(signed.body);
  const answer = await wire.response();
  expect(answer.status).toBe(413);
  expect(answer.text).toContain("max_chunk_bytes");
});

test("real keys are in no response, log or event", async () => {
  const to = `${host}:${secure.port}`;
  const sent = handSigned({ ...put, method: "GET", path: "/b/moved", host: to });
  const wire = new RawClient(await proxy.tls(to));
  wire.send(head(put, "/b/moved", sent.fields, 0).replace(/^PUT/, "GET"));
  const moved = await wire.response();
  expect(moved.status).toBe(307);
  const saved = secure.keys;
  secure.keys = [{ ...real, secret: "changed" }];
  const refused = await ways["the bridge, HTTP/1.1"]?.send({ ...put, host: to });
  secure.keys = saved;
  expect(refused?.status).toBe(403);
  expect(refused?.text).toContain("SignatureDoesNotMatch");
  const { text: sessions } = await proxy.sessions("/v1/sessions/default");
  const { text: config } = await proxy.stats("/config");
  const everything = [
    moved.text,
    moved.header("location"),
    refused?.text,
    sessions,
    config,
    proxy.stderr,
  ];
  for (const secret of [
    real.accessKeyId,
    real.secret,
    real.sessionToken,
    encodeURIComponent(real.sessionToken),
  ])
    expect(everything.join("\n")).not.toContain(secret);
});

test("unsigned requests are refused, signed or passed, as their rule says", async () => {
  const rules = [
    { host, services: ["s3"], unsigned: "sign" },
    { host: bedrock, unsigned: "sign" },
    { host: "minio.test", services: ["s3"], regions: ["us-east-1"], unsigned: "sign" },
    { host: "**", unsigned: "refuse" },
  ];
  const signing = await own(start([plugin({ routes: { rules } })]));
  const ask = async (name: string, text: string): Promise<RawResponse> => {
    const wire = new RawClient(await signing.tls(`${name}:${secure.port}`));
    wire.send(text.replace("HOST", `${name}:${secure.port}`));
    return wire.response();
  };
  secure.objects.set("/b/x y", Buffer.from("found"));
  const get = "GET /b/x%20y HTTP/1.1\r\nHost: HOST\r\n\r\n";
  expect((await ask(host, get)).text).toBe("found");
  expect((await ask("minio.test", get)).text).toBe("found");
  const post =
    "POST /model/m%3A1/invoke HTTP/1.1\r\nHost: HOST\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
  expect((await ask(bedrock, post)).text).toBe('{"ok":true}');
  const upload = "PUT /b/new HTTP/1.1\r\nHost: HOST\r\nContent-Length: 3\r\n\r\nnew";
  expect((await ask(host, upload)).status).toBe(200);
  expect((await ask(everywhere, get)).json()).toMatchObject({ error: "aws-sigv4.unsigned" });
});

describe("keys that are fetched", () => {
  const role = "arn:aws:iam::123456789012:role/agent";

  /** STS, and the endpoint of a container, over plain HTTP. */
  async function keyServer(): Promise<{ url: string; calls: string[]; isDown: boolean }> {
    const state = { url: "", calls: [] as string[], isDown: false };
    const server = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on("data", (chunk: Buffer) => chunks.push(chunk));
      request.on("end", () => {
        state.calls.push(
          `${request.headers.authorization ?? ""} ${Buffer.concat(chunks).toString()}`,
        );
        const end = new Date(Date.now() + 3_600_000).toISOString();
        if (state.isDown) response.writeHead(503);
        if (state.isDown) response.end("<Error><Code>ServiceUnavailable</Code></Error>");
        else if (request.url === "/container")
          response.end(
            JSON.stringify({
              AccessKeyId: real.accessKeyId,
              SecretAccessKey: real.secret,
              Token: real.sessionToken,
              Expiration: end,
            }),
          );
        else
          response.end(
            `<R><Credentials><AccessKeyId>${real.accessKeyId}</AccessKeyId><SecretAccessKey>${real.secret}</SecretAccessKey><SessionToken>${real.sessionToken}</SessionToken><Expiration>${end}</Expiration></Credentials></R>`,
          );
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    await own({ close: () => (server.closeAllConnections(), void server.close()) });
    state.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    return state;
  }

  test.each(["web_identity", "container", "assume_role"] as const)(
    "%s: a hundred requests at once, one call",
    async (source) => {
      const keys = await keyServer();
      await writeFile(join(folder, "oidc"), "the-oidc-token");
      const sources = {
        web_identity: {
          source,
          role_arn: role,
          sts_url: `${keys.url}/`,
          web_identity_token_file: join(folder, "oidc"),
        },
        container: {
          source,
          url: `${keys.url}/container`,
          authorization_token_file: join(folder, "oidc"),
        },
        assume_role: {
          source: "static",
          access_key_id: "AKIABELOW",
          secret_access_key: "below",
          assume_role: { role_arn: role, sts_url: `${keys.url}/` },
        },
      };
      const fetching = await own(start([plugin({ keys: [keyOf(sources[source])] })]));
      const request = { ...put, host: `${host}:${plain.port}`, body: Buffer.from("x") };
      const all = await Promise.all(
        Array.from({ length: 100 }, async () => ways["absolute form"]?.send(request, fetching)),
      );
      expect(new Set(all.map((answer) => answer?.status))).toEqual(new Set([200]));
      expect(keys.calls).toHaveLength(1);
      expect(keys.calls[0]).toContain(source === "assume_role" ? "AKIABELOW" : "the-oidc-token");
      expect(fetching.stderr).not.toContain("the-oidc-token");
    },
  );

  test("where there are none: not ready, and requests are refused with words", async () => {
    const keys = await keyServer();
    keys.isDown = true;
    const config = { source: "container", url: `${keys.url}/container` };
    const fetching = await own(start([plugin({ keys: [keyOf(config)] })]));
    const request = { ...put, host: `${host}:${plain.port}`, body: Buffer.from("x") };
    const answer = await ways["absolute form"]?.send(request, fetching);
    expect(answer?.status).toBe(503);
    expect(answer?.text).toContain("aws-sigv4.credentials-unavailable");
    keys.isDown = false;
    await expect
      .poll(async () => (await ways["absolute form"]?.send(request, fetching))?.status, {
        timeout: 20_000,
      })
      .toBe(200);
  });
});

test("static keys and the secret of a stand-in come from files, as of now", async () => {
  const at = (name: string): string => join(folder, name);
  const parts = { id: real.accessKeyId, secret: "before", token: real.sessionToken };
  for (const [name, text] of Object.entries({ ...parts, stand: standIn.secretAccessKey }))
    await writeFile(at(name), `${text}\n`);
  const key = {
    access_key_id: standIn.accessKeyId,
    secret_access_key_file: at("stand"),
    credentials: {
      source: "static",
      access_key_id_file: at("id"),
      secret_access_key_file: at("secret"),
      session_token_file: at("token"),
    },
  };
  const signing = await own(start([plugin({ keys: [key] })]));
  const request = { ...put, host: `${host}:${plain.port}`, body: Buffer.from("x") };
  const status = async (): Promise<number | undefined> =>
    (await ways["absolute form"]?.send(request, signing))?.status;
  expect([await status(), plain.last?.verdict.kind]).toEqual([403, "wrong"]);
  await writeFile(at("secret"), real.secret);
  await expect.poll(status, { timeout: 20_000 }).toBe(200);
  // What the agent signs with is not this any more.
  await writeFile(at("stand"), "another");
  await expect.poll(status, { timeout: 20_000 }).toBe(403);
  expect(plain.last?.verdict.kind).toBe("right");
});

test("signing_name is the service that requests to a host are signed for, and no other", async () => {
  const rules = [{ host: "minio.test", signing_name: "s3", regions: ["eu-central-1"] }];
  const signing = await own(start([plugin({ routes: { rules } })]));
  const request = { ...put, host: `minio.test:${plain.port}`, body: Buffer.from("x") };
  const send = async (service: string) =>
    ways["absolute form"]?.send({ ...request, service }, signing);
  expect((await send("s3"))?.status).toBe(200);
  const other = await send("s3-outposts");
  expect([other?.status, other?.text]).toEqual([
    403,
    expect.stringContaining("signing_name of its rule is s3"),
  ]);
});

test("keys that were replaced in their file serve without a restart, also on two threads", async () => {
  const path = join(folder, "rotating");
  const write = (secret: string) =>
    writeFile(
      path,
      `[default]\naws_access_key_id=${real.accessKeyId}\naws_secret_access_key=${secret}\n`,
    );
  await write("first");
  const two = await own(
    start([plugin({ keys: [keyOf({ source: "shared_file", file: path })] })], { workers: 2 }),
  );
  const store = await own(
    ObjectStore.start([
      { accessKeyId: real.accessKeyId, secret: "first" },
      { accessKeyId: real.accessKeyId, secret: "second" },
    ]),
  );
  const once1 = () =>
    ways["absolute form"]?.send(
      { ...put, host: `${host}:${store.port}`, body: Buffer.from("x") },
      two,
    );
  expect((await once1())?.status).toBe(200);
  await write("second");
  store.keys = [{ accessKeyId: real.accessKeyId, secret: "second" }];
  await expect.poll(async () => (await once1())?.status, { timeout: 20_000 }).toBe(200);
  expect(await readFile(path, "utf8")).toContain("second");
});
