/** HTTP/2 without TLS: gRPC inside a CONNECT and to a sidecar, and clients that speak it to the proxy itself. */
import { once } from "node:events";
import http2, { type ClientHttp2Session } from "node:http2";
import { connect, type Socket } from "node:net";
import type { Duplex } from "node:stream";
import {
  type Client,
  credentials,
  type handleBidiStreamingCall,
  type handleUnaryCall,
  makeGenericClientConstructor,
  Metadata,
  Server,
  ServerCredentials,
  status as codes,
} from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { RawClient } from "../support/http-client.ts";
import { frame, frameType, preface } from "../support/http2-frames.ts";
import { HttpOrigin } from "../support/origin.ts";
import { owner } from "../support/owner.ts";
import { inbound, merge, outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
const bytes = (value: Buffer): Buffer => value;
const method = (path: string, streams: boolean) => ({
  path: `/test.Echo/${path}`,
  requestStream: streams,
  responseStream: streams,
  requestSerialize: bytes,
  requestDeserialize: bytes,
  responseSerialize: bytes,
  responseDeserialize: bytes,
});
const service = {
  unary: method("Unary", false),
  denied: method("Denied", false),
  both: method("Both", true),
};

let deniedCalls = 0;
const unary: handleUnaryCall<Buffer, Buffer> = (call, respond) => {
  const trailers = new Metadata();
  trailers.set("x-trailer", "kept");
  respond(null, Buffer.from(`got ${call.request.toString()}`), trailers);
};
const denied: handleUnaryCall<Buffer, Buffer> = (_call, respond) => {
  deniedCalls += 1;
  respond(null, Buffer.alloc(0));
};
const both: handleBidiStreamingCall<Buffer, Buffer> = (call) => {
  call.on("data", (part: Buffer) => call.write(part));
  call.on("end", () => call.end());
  call.on("error", () => undefined);
};

const variables = ["grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"];
const saved = new Map(variables.map((name) => [name, process.env[name]]));
const denier = { name: "denier", config: { path: "/test.Echo/Denied" } };
const names = { "echo.test": ["127.0.0.1"], "other.test": ["127.0.0.1"] };

let port: number;
let origin: HttpOrigin;
let forward: ProxyProcess;

beforeAll(async () => {
  const server = new Server();
  server.addService(service, { unary, denied, both });
  port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  await own({ close: () => server.forceShutdown() });
  origin = await own(HttpOrigin.launch());
  forward = await own(
    ProxyProcess.start(settings(merge(outbound(denier), { egress: { hosts: names } }))),
  );
  for (const name of variables) delete process.env[name];
});
afterAll(() => {
  for (const [name, value] of saved) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

function unaryCall(client: Client, name: string) {
  return new Promise<{ code: number; text: string; trailer: unknown }>((resolve) => {
    let text = "";
    client
      .makeUnaryRequest(
        `/test.Echo/${name}`,
        bytes,
        bytes,
        Buffer.from("hello"),
        new Metadata(),
        { deadline: Date.now() + 10_000 },
        (_error, response) => (text = response?.toString() ?? ""),
      )
      .on("status", ({ code, metadata }) => {
        setImmediate(() => resolve({ code, text, trailer: metadata.get("x-trailer")[0] }));
      });
  });
}

async function echo(client: Client): Promise<string[]> {
  const call = client.makeBidiStreamRequest("/test.Echo/Both", bytes, bytes);
  const seen: string[] = [];
  call.on("data", (part: Buffer) => seen.push(part.toString()));
  for (const part of ["a", "b", "c"]) call.write(Buffer.from(part));
  call.end();
  await once(call, "end");
  return seen;
}

const Echo = makeGenericClientConstructor(service, "Echo");

async function backend(url: string): Promise<{ client: Client; proxy: ProxyProcess }> {
  const proxy = await own(
    ProxyProcess.start(
      settings(merge(inbound(denier), { listener: { reverse_proxy_backend: url } })),
    ),
  );
  const client = new Echo(`127.0.0.1:${proxy.reverse.port}`, credentials.createInsecure());
  await own({ close: () => client.close() });
  return { client, proxy };
}

async function throughConnect(): Promise<Client> {
  process.env["grpc_proxy"] = `http://127.0.0.1:${forward.forward.port}`;
  const client = new Echo(`echo.test:${port}`, credentials.createInsecure());
  await own({ close: () => client.close() });
  return client;
}

const ways: readonly (readonly [string, () => Promise<Client>])[] = [
  ["inside a CONNECT", throughConnect],
  ["to a backend of h2c://", async () => (await backend(`h2c://127.0.0.1:${port}`)).client],
  ["to a backend of http://", async () => (await backend(`http://127.0.0.1:${port}`)).client],
];

describe.each(ways)("gRPC without TLS %s", (_way, open) => {
  let client: Client;
  beforeAll(async () => {
    client = await open();
    // Found when its first call was made.
    await unaryCall(client, "Unary");
    delete process.env["grpc_proxy"];
  });

  test("has its response and its trailers", async () => {
    const expected = { code: codes.OK, text: "got hello", trailer: "kept" };
    expect(await unaryCall(client, "Unary")).toEqual(expected);
  });

  test("streams both ways", async () => {
    expect(await echo(client)).toEqual(["a", "b", "c"]);
  });

  test("is judged by path", async () => {
    expect((await unaryCall(client, "Denied")).code).toBe(codes.PERMISSION_DENIED);
    expect(deniedCalls).toBe(0);
  });
});

interface Response {
  readonly status: number;
  readonly text: string;
}

async function ask(session: ClientHttp2Session, fields: Record<string, string>): Promise<Response> {
  const stream = session.request({ ":path": "/", ...fields });
  let text = "";
  stream.setEncoding("utf8").on("data", (part: string) => (text += part));
  const [head] = (await once(stream, "response")) as [Record<string, unknown>];
  await once(stream, "end");
  return { status: Number(head[":status"]), text };
}

async function tunnelTo(authority: string): Promise<Socket> {
  const { host, port: at } = forward.forward;
  const socket = connect({ host, port: at });
  socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n\r\n`);
  await once(socket, "readable");
  expect(String(socket.read())).toMatch(/^HTTP\/1\.1 200 /);
  return socket;
}

async function connectTo(address: number, socket?: Duplex): Promise<ClientHttp2Session> {
  const session = http2.connect(
    `http://127.0.0.1:${address}`,
    socket === undefined ? {} : { createConnection: () => socket },
  );
  session.on("error", () => undefined);
  await own({ close: () => session.destroy() });
  return session;
}

describe("HTTP/2 without TLS on the forward port", () => {
  test("is served, and the origin gets HTTP/1.1", async () => {
    const session = await connectTo(forward.forward.port);
    const authority = `echo.test:${origin.port}`;
    const [one, other] = await Promise.all([
      ask(session, { ":authority": authority, ":path": "/one" }),
      ask(session, { ":authority": authority, ":path": "/test.Echo/Denied" }),
    ]);
    expect(one).toEqual({ status: 200, text: "hello from the origin" });
    expect(other.status).toBe(403);
    expect(origin.requestFor("/one").header("host")).toBe(authority);
  });

  test("is refused with another scheme, and where it is only begun", async () => {
    const session = await connectTo(forward.forward.port);
    const fields = { ":authority": `echo.test:${origin.port}`, ":scheme": "https" };
    expect((await ask(session, fields)).status).toBe(421);
  });
});

test("inside a CONNECT every stream is for its host", async () => {
  const authority = `echo.test:${port}`;
  const session = await connectTo(port, await tunnelTo(authority));
  expect((await ask(session, { ":authority": `other.test:${port}` })).status).toBe(421);
  expect(
    (await ask(session, { ":authority": authority, ":path": "/test.Echo/Denied" })).status,
  ).toBe(403);
});

test.each(["on the forward port", "inside a CONNECT"])(
  "a preface in pieces %s is one",
  async (where) => {
    const authority = `echo.test:${port}`;
    const socket =
      where === "inside a CONNECT"
        ? await tunnelTo(authority)
        : connect({ host: "127.0.0.1", port: forward.forward.port });
    const client = RawClient.over(socket);
    await own(client);
    client.socket.setNoDelay(true);
    for (const byte of preface) client.send(Uint8Array.of(byte));
    client.send(frame(frameType.settings, 0, 0));
    const [length = 0, , , type] = await client.reader.exactly(9);
    expect([length, type]).toEqual([0, frameType.settings]);
  },
);

test("sessions end with the process, after their streams", async () => {
  const proxy = await own(ProxyProcess.start(settings(outbound(denier))));
  const session = await connectTo(proxy.forward.port);
  expect((await ask(session, { ":authority": origin.authority })).status).toBe(200);
  const closed = once(session, "close");
  await proxy.close();
  await closed;
});
