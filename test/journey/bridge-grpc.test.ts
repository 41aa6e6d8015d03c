/** gRPC through the bridge: a real client and a real server, every kind of call, statuses in trailers. */
import {
  type Client,
  credentials,
  type handleBidiStreamingCall,
  type handleClientStreamingCall,
  type handleServerStreamingCall,
  type handleUnaryCall,
  makeGenericClientConstructor,
  Metadata,
  Server,
  ServerCredentials,
  type ServiceError,
  status,
} from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { eventually, within } from "../support/eventually.ts";

const allowed = "api.allowed.test";

const bytes = (value: Buffer): Buffer => value;
const method = (path: string, requestStream: boolean, responseStream: boolean) => ({
  path: `/test.Echo/${path}`,
  requestStream,
  responseStream,
  requestSerialize: bytes,
  requestDeserialize: bytes,
  responseSerialize: bytes,
  responseDeserialize: bytes,
});

const service = {
  unary: method("Unary", false, false),
  fail: method("Fail", false, false),
  hang: method("Hang", false, false),
  denied: method("Denied", false, false),
  down: method("Down", false, true),
  up: method("Up", true, false),
  both: method("Both", true, true),
};

let server: Server;
let proxy: BridgeProxy;
let client: Client;
let port: number;
let cancelled = 0;
let deniedCalls = 0;

const unary: handleUnaryCall<Buffer, Buffer> = (call, answer) => {
  const trailers = new Metadata();
  trailers.set("x-trailer", "kept");
  trailers.set("x-bytes-bin", Buffer.of(0, 255, 10));
  const ask = call.metadata.get("x-ask").map(String).join();
  answer(null, Buffer.from(`${ask}:${call.request.toString()}`), trailers);
};

const fail: handleUnaryCall<Buffer, Buffer> = (_call, answer) => {
  const metadata = new Metadata();
  metadata.set("x-why", "because");
  answer({ code: status.FAILED_PRECONDITION, details: "not now, später", metadata });
};

const hang: handleUnaryCall<Buffer, Buffer> = (call) => {
  call.on("cancelled", () => {
    cancelled += 1;
  });
};

const denied: handleUnaryCall<Buffer, Buffer> = (_call, answer) => {
  deniedCalls += 1;
  answer(null, Buffer.alloc(0));
};

const down: handleServerStreamingCall<Buffer, Buffer> = (call) => {
  for (let count = 0; count < 100; count += 1) call.write(Buffer.from(String(count)));
  call.end();
};

const up: handleClientStreamingCall<Buffer, Buffer> = (call, answer) => {
  let size = 0;
  call.on("data", (part: Buffer) => (size += part.length));
  call.on("end", () => answer(null, Buffer.from(String(size))));
};

const both: handleBidiStreamingCall<Buffer, Buffer> = (call) => {
  call.on("data", (part: Buffer) => call.write(Buffer.from(`echo ${part.toString()}`)));
  call.on("end", () => call.end());
  call.on("error", () => undefined);
};

/** Variables by which this library finds a proxy. */
const proxyVariables = ["grpc_proxy", "https_proxy", "http_proxy", "no_grpc_proxy", "no_proxy"];
const saved = new Map(proxyVariables.map((name) => [name, process.env[name]]));

beforeAll(async () => {
  const authority = await TestAuthority.create();
  const { cert, key } = await authority.server([allowed]);
  server = new Server({ "grpc.max_receive_message_length": -1 });
  server.addService(service, { unary, fail, hang, denied, down, up, both });
  const pair = { private_key: Buffer.from(key), cert_chain: Buffer.from(cert) };
  port = await new Promise<number>((resolve, reject) => {
    server.bindAsync("127.0.0.1:0", ServerCredentials.createSsl(null, [pair]), (error, bound) => {
      if (error === null) resolve(bound);
      else reject(error);
    });
  });
  proxy = await BridgeProxy.start({
    ports: [port],
    originCa: authority.caPem,
    plugins: [
      { name: "bridge-witness", config: { file: "seen.jsonl" } },
      { name: "deny-paths", config: { prefix: "/test.Echo/Denied" } },
    ],
  });
  for (const name of proxyVariables) delete process.env[name];
  process.env["grpc_proxy"] = proxy.url;
  const Echo = makeGenericClientConstructor(service, "Echo");
  client = new Echo(`${allowed}:${port}`, credentials.createSsl(Buffer.from(proxy.ca)), {
    "grpc.max_receive_message_length": -1,
  });
});
afterAll(async () => {
  client.close();
  server.forceShutdown();
  await proxy.close();
  for (const [name, value] of saved) {
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
  }
});

const soon = (): { deadline: number } => ({ deadline: Date.now() + 10_000 });

interface UnaryResult {
  readonly error: ServiceError | null;
  readonly text: string;
  readonly trailers: Metadata;
}

function call(
  name: string,
  body: string | Buffer,
  metadata = new Metadata(),
): Promise<UnaryResult> {
  return new Promise((resolve) => {
    let error: ServiceError | null = null;
    let text = "";
    client
      .makeUnaryRequest(
        `/test.Echo/${name}`,
        bytes,
        bytes,
        Buffer.from(body),
        metadata,
        soon(),
        (failure, answer) => {
          error = failure;
          text = answer?.toString() ?? "";
        },
      )
      .on("status", ({ metadata: trailers }) => {
        setImmediate(() => resolve({ error, text, trailers }));
      });
  });
}

describe("a gRPC client", () => {
  test("makes a unary call with metadata both ways", async () => {
    const metadata = new Metadata();
    metadata.set("x-ask", "asked");
    const { error, text, trailers } = await call("Unary", "hello", metadata);
    expect(error).toBeNull();
    expect(text).toBe("asked:hello");
    expect(trailers.get("x-trailer")).toEqual(["kept"]);
    expect(trailers.get("x-bytes-bin")).toEqual([Buffer.of(0, 255, 10)]);
  });

  test("was seen by the chain as a request over https", async () => {
    await call("Unary", "seen");
    const notes = await proxy.records("seen.jsonl");
    expect(notes).toContainEqual(
      expect.objectContaining({ path: "/test.Echo/Unary", method: "POST", scheme: "https" }),
    );
  });

  test("gets status, details and metadata of an error", async () => {
    const { error } = await call("Fail", "");
    expect(error?.code).toBe(status.FAILED_PRECONDITION);
    expect(error?.details).toBe("not now, später");
    expect(error?.metadata.get("x-why")).toEqual(["because"]);
  });

  test("gets UNIMPLEMENTED, which comes in trailers only", async () => {
    const { error } = await call("NoSuchMethod", "");
    expect(error?.code).toBe(status.UNIMPLEMENTED);
  });

  test("moves messages of megabytes", async () => {
    const body = "x".repeat(6 * 1024 * 1024);
    const { error, text } = await call("Unary", body);
    expect(error).toBeNull();
    expect(text.length).toBe(body.length + 1);
  });

  test("reads a stream", async () => {
    const stream = client.makeServerStreamRequest(
      "/test.Echo/Down",
      bytes,
      bytes,
      Buffer.alloc(0),
      new Metadata(),
      soon(),
    );
    const parts: string[] = [];
    for await (const part of stream) parts.push(String(part));
    expect(parts).toHaveLength(100);
    expect(parts.at(-1)).toBe("99");
  });

  test("writes a stream", async () => {
    const size = await new Promise<string>((resolve, reject) => {
      const stream = client.makeClientStreamRequest(
        "/test.Echo/Up",
        bytes,
        bytes,
        new Metadata(),
        soon(),
        (error, answer) => {
          if (error === null) resolve(answer?.toString() ?? "");
          else reject(error);
        },
      );
      for (let count = 0; count < 100; count += 1) stream.write(Buffer.alloc(10_000));
      stream.end();
    });
    expect(size).toBe("1000000");
  });

  test("talks both ways at once: each message is answered before the next is sent", async () => {
    const stream = client.makeBidiStreamRequest(
      "/test.Echo/Both",
      bytes,
      bytes,
      new Metadata(),
      soon(),
    );
    const answers: string[] = [];
    const ended = new Promise<void>((resolve, reject) => {
      stream.on("end", resolve);
      stream.on("error", reject);
    });
    stream.on("data", (part: Buffer) => {
      answers.push(part.toString());
      if (answers.length < 20) stream.write(Buffer.from(`message ${answers.length}`));
      else stream.end();
    });
    stream.write(Buffer.from("message 0"));
    await within("the conversation", ended);
    expect(answers).toHaveLength(20);
    expect(answers.at(-1)).toBe("echo message 19");
  });

  test("holds many conversations at once", async () => {
    const talks = Array.from({ length: 30 }, (_, index) => {
      const stream = client.makeBidiStreamRequest(
        "/test.Echo/Both",
        bytes,
        bytes,
        new Metadata(),
        soon(),
      );
      return new Promise<string>((resolve, reject) => {
        stream.on("error", reject);
        stream.on("data", (part: Buffer) => {
          stream.end();
          resolve(part.toString());
        });
        stream.write(Buffer.from(`talk ${index}`));
      });
    });
    const answers = await Promise.all(talks);
    expect(answers).toEqual(talks.map((_, index) => `echo talk ${index}`));
  });

  test("that cancels is heard by the server", async () => {
    const before = cancelled;
    const pending = client.makeUnaryRequest(
      "/test.Echo/Hang",
      bytes,
      bytes,
      Buffer.alloc(0),
      new Metadata(),
      soon(),
      () => undefined,
    );
    await eventually(async () => {
      const notes = await proxy.records("seen.jsonl");
      return notes.some((note) => note["path"] === "/test.Echo/Hang");
    });
    setImmediate(() => pending.cancel());
    // A call that is cancelled on its way may never arrive: ask until one has.
    await eventually(() => {
      if (cancelled > before) return true;
      const again = client.makeUnaryRequest(
        "/test.Echo/Hang",
        bytes,
        bytes,
        Buffer.alloc(0),
        new Metadata(),
        { deadline: Date.now() + 200 },
        () => undefined,
      );
      return new Promise<boolean>((resolve) => {
        again.on("status", () => resolve(cancelled > before));
      });
    });
    expect(cancelled).toBeGreaterThan(before);
  });

  test("that policy refuses gets PERMISSION_DENIED with the reason, and its server nothing", async () => {
    const { error } = await call("Denied", "");
    expect(error?.code).toBe(status.PERMISSION_DENIED);
    // Clients show nothing of a response that is not gRPC but its status.
    expect(error?.details).toMatch(/^Forbidden: \w/);
    expect(deniedCalls).toBe(0);
    expect((await call("Unary", "after")).text).toBe(":after");
  });
});
