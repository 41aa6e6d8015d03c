/** HTTP/2 to an origin: every byte of a response, streams that were not processed, and the origin's own limit. */
import http2, { type ServerHttp2Stream } from "node:http2";
import type { AddressInfo } from "node:net";
import tls from "node:tls";
import { beforeAll, describe, expect, onTestFinished, test, vi } from "vitest";
import { ProxyError } from "../../../src/errors.ts";
import { Http2Origin } from "../../../src/upstream/http2-origin.ts";
import type { BodySink } from "../../../src/http/body-source.ts";
import type { RequestControl } from "../../../src/http/response-handler.ts";
import type { Stallable } from "../../../src/net/stall-watch.ts";
import type { OutgoingRequest, StreamedBody } from "../../../src/upstream/upstream.ts";
import { type ServerCertificate, TestAuthority } from "../../support/certs.ts";
import { permitFor } from "../../support/permit.ts";
import { block, flag, frame, frameType } from "../../support/http2-frames.ts";
import {
  endsRequest,
  type ScriptedOrigin,
  type Script,
  scriptedHttp2,
} from "../../support/scripted-http2.ts";

const bodyBytes = 777;
const permit = permitFor("https://origin.test");
const refusedStream = 7;

let ca: TestAuthority;
let certificate: ServerCertificate;

beforeAll(async () => {
  ca = await TestAuthority.create();
  certificate = await ca.server(["origin.test"]);
});

/** HEADERS, DATA and trailers in one write, and so in one segment. */
function response(stream: number): Buffer {
  const head = block([
    [":status", "200"],
    ["content-type", "application/grpc"],
  ]);
  return Buffer.concat([
    frame(frameType.headers, flag.endHeaders, stream, head),
    frame(frameType.data, 0, stream, Buffer.alloc(bodyBytes, 1)),
    frame(
      frameType.headers,
      flag.endHeaders | flag.endStream,
      stream,
      block([["grpc-status", "0"]]),
    ),
  ]);
}

interface Bench {
  readonly client: Http2Origin;
  readonly origin: ScriptedOrigin;
  /** Streams whose time is watched. */
  readonly watched: Map<number, Stallable>;
}

async function bench(script: Script, responseTimeoutMs = 10_000): Promise<Bench> {
  const origin = await scriptedHttp2(certificate, script);
  const watched = new Map<number, Stallable>();
  const client = clientOf(origin.port, { watched, responseTimeoutMs });
  onTestFinished(() => {
    client.destroy();
    origin.close();
  });
  return { client, origin, watched };
}

function clientOf(
  port: number,
  { watched = new Map<number, Stallable>(), responseTimeoutMs = 10_000 } = {},
): Http2Origin {
  let slots = 0;
  const add = (stream: Stallable): number => {
    watched.set((slots += 1), stream);
    return slots;
  };
  return new Http2Origin({
    watch: { add, delete: (slot) => watched.delete(slot) },
    authority: `origin.test:${port}`,
    connectTimeoutMs: 10_000,
    responseTimeoutMs,
    streamIdleTimeoutMs: 5_000,
    idleTimeoutMs: 10_000,
    maxHeaderBytes: 65_536,
    open: () =>
      new Promise((resolve, reject) => {
        const host = { host: "127.0.0.1", port, servername: "origin.test" };
        const socket = tls.connect({ ...host, ca: ca.caPem, ALPNProtocols: ["h2"] }, () => {
          socket.off("error", reject).on("error", () => undefined);
          resolve(socket);
        });
        socket.once("error", reject);
      }),
  });
}

/** What one request came to. */
interface Outcome {
  readonly order: string;
  readonly bytes: number;
  readonly trailer: unknown;
  readonly status: number;
}

/** What is special about a request. */
interface Asking {
  readonly headers?: string[];
  /** Hears of its control first. */
  readonly started?: (control: RequestControl) => void;
  readonly answered?: () => void;
  readonly ended?: () => void;
}

/** Sends a request. */
function ask(
  client: Http2Origin,
  body: OutgoingRequest["body"],
  { headers = [], started, answered, ended }: Asking = {},
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    let order = "";
    let bytes = 0;
    let status = 0;
    client.dispatch(
      permit,
      { method: body === null ? "GET" : "POST", path: "/", headers, body, needsHttp2: true },
      {
        onRequestStart: (control) => started?.(control),
        onResponseStarted: () => undefined,
        onInformational: () => undefined,
        onUpgrade: () => undefined,
        onResponseStart: (_control, code) => {
          order += "h";
          status = code;
          answered?.();
        },
        onResponseData: (_control, chunk) => {
          order += "d";
          bytes += chunk.length;
        },
        onResponseEnd: (_control, trailers) => {
          ended?.();
          resolve({
            order: order.replace(/d+/, "d"),
            bytes,
            trailer: trailers[trailers.indexOf("grpc-status") + 1],
            status,
          });
        },
        onResponseError: (_control, error) => reject(error),
      },
    );
  });
}

/** A streamed body that gives these chunks, and all of them again if it `canRepeat`. */
function streamed(chunks: readonly string[], canRepeat: boolean): StreamedBody {
  let given = 0;
  let isKept = false;
  let open: BodySink | undefined;
  return {
    get isWhole() {
      return given === 0 || (canRepeat && isKept);
    },
    keep: () => {
      isKept = true;
    },
    forget: () => {
      isKept = false;
    },
    open: (sink) => {
      open = sink;
      for (const chunk of chunks) {
        given += 1;
        sink.data(Buffer.from(chunk));
      }
      sink.end();
    },
    resume: () => undefined,
    detach: (sink) => {
      if (sink === open) open = undefined;
    },
  };
}

const codeOf = (error: unknown): unknown => (error instanceof ProxyError ? error.code : error);

test.each([
  ["a GET", null],
  ["a POST", Buffer.from("x")],
])("%s: head first, then every byte, then trailers; a hundred at once", async (_name, body) => {
  const { client } = await bench((connection) => {
    connection.settings();
    return (next) => {
      if (endsRequest(next)) connection.socket.write(response(next.stream));
    };
  });
  for (let round = 0; round < 20; round += 1) {
    const outcomes = await Promise.all(Array.from({ length: 100 }, () => ask(client, body)));
    const whole = { order: "hd", bytes: bodyBytes, trailer: "0", status: 200 };
    expect(outcomes).toEqual(Array.from({ length: 100 }, () => whole));
  }
});

/** Bodies of requests by stream and connection, as the origin read them. */
class Reader {
  readonly #bodies = new Map<string, string>();

  read(connection: number, stream: number, payload: Buffer): void {
    const key = `${connection}/${stream}`;
    this.#bodies.set(key, (this.#bodies.get(key) ?? "") + payload.toString());
  }

  of(connection: number, stream: number): string | undefined {
    return this.#bodies.get(`${connection}/${stream}`);
  }
}

describe("a stream that the origin did not process", () => {
  const bodies: readonly [name: string, body: () => OutgoingRequest["body"], sent: string][] = [
    ["no body", () => null, ""],
    ["a body in memory", () => Buffer.from("whole"), "whole"],
    ["a streamed body that was kept", () => streamed(["wh", "ole"], true), "whole"],
  ];

  test.each(bodies)("is sent again when it was refused: %s", async (_name, body, sent) => {
    const reader = new Reader();
    const { client, origin } = await bench((connection) => {
      connection.settings();
      return (next) => {
        if (next.type === frameType.data) reader.read(connection.index, next.stream, next.payload);
        if (!endsRequest(next)) return;
        if (connection.index === 0) connection.reset(next.stream, refusedStream);
        else connection.respond(next.stream, "201");
      };
    });
    await expect(ask(client, body())).resolves.toMatchObject({ status: 201 });
    expect(origin.connections).toHaveLength(2);
    expect(reader.of(1, 1) ?? "").toBe(sent);
  });

  test.each([
    ["a clean GOAWAY", 0],
    ["ENHANCE_YOUR_CALM", 11],
  ])("is sent again after %s, and the ones below are not", async (_name, code) => {
    const seen: number[] = [];
    const { client } = await bench((connection) => {
      connection.settings();
      return (next) => {
        if (!endsRequest(next)) return;
        if (connection.index > 0) {
          connection.respond(next.stream, "201");
          return;
        }
        seen.push(next.stream);
        if (seen.length < 10) return;
        for (const stream of seen) if (stream <= 7) connection.respond(stream);
        connection.goaway(7, code);
      };
    });
    const outcomes = await Promise.all(
      Array.from({ length: 10 }, () => ask(client, Buffer.from("x"))),
    );
    const statuses = outcomes.map(({ status }) => status).sort((a, b) => a - b);
    expect(statuses).toEqual([200, 200, 200, 200, 201, 201, 201, 201, 201, 201]);
  });

  test("is sent again once, not for ever", async () => {
    const { client, origin } = await bench((connection) => {
      connection.settings();
      return (next) => {
        if (endsRequest(next)) connection.reset(next.stream, refusedStream);
      };
    });
    await expect(ask(client, null).catch(codeOf)).resolves.toMatchObject({
      code: "ERR_HTTP2_STREAM_ERROR",
    });
    expect(origin.connections).toHaveLength(2);
  });

  test("is not sent again without the bytes that it had", async () => {
    const { client, origin } = await bench((connection) => {
      connection.settings();
      return (next) => {
        if (endsRequest(next)) connection.reset(next.stream, refusedStream);
      };
    });
    await expect(ask(client, streamed(["x"], false))).rejects.toThrow();
    expect(origin.connections).toHaveLength(1);
  });

  test("a stream that the origin may have processed is not sent again", async () => {
    const internalError = 2;
    const { client, origin } = await bench((connection) => {
      connection.settings();
      return (next) => {
        if (endsRequest(next)) connection.reset(next.stream, internalError);
      };
    });
    await expect(ask(client, null)).rejects.toThrow();
    expect(origin.connections).toHaveLength(1);
  });
});

describe("an origin's limit of concurrent streams", () => {
  test("holds from the first request on; the others wait for a place", async () => {
    const limit = 5;
    let most = 0;
    let total = 0;
    const { client } = await bench((connection) => {
      const open: number[] = [];
      let isReady = false;
      // The settings come late: nothing may be sent before them.
      setImmediate(() => {
        isReady = true;
        connection.settings(limit);
      });
      return (next) => {
        if (!endsRequest(next)) return;
        if (!isReady || open.length >= limit) {
          connection.reset(next.stream, refusedStream);
          return;
        }
        total += 1;
        open.push(next.stream);
        most = Math.max(most, open.length);
        setImmediate(() => {
          open.splice(open.indexOf(next.stream), 1);
          connection.respond(next.stream);
        });
      };
    });
    const outcomes = await Promise.all(Array.from({ length: 120 }, () => ask(client, null)));
    expect(outcomes.every(({ status }) => status === 200)).toBe(true);
    expect(total).toBe(120);
    expect(most).toBeLessThanOrEqual(limit);
  });

  test("of nothing lets a request wait for its time and opens no further connections", async () => {
    const { client, origin } = await bench((connection) => {
      connection.settings(0);
      return () => undefined;
    }, 50);
    await expect(ask(client, null).catch(codeOf)).resolves.toBe("upstream.timeout");
    // A busy machine may not have accepted the first yet.
    expect(origin.connections.length).toBeLessThan(2);
  });

  test("that rises lets those go on that wait", async () => {
    const { client } = await bench((connection) => {
      connection.settings(0);
      return (next) => {
        if (next.type === frameType.settings && (next.flags & flag.ack) !== 0)
          connection.settings(1);
        if (endsRequest(next)) connection.respond(next.stream);
      };
    });
    await expect(ask(client, null)).resolves.toMatchObject({ status: 200 });
  });

  test("a request whose client left waits no longer", async () => {
    const { client } = await bench((connection) => {
      connection.settings(0);
      return () => undefined;
    });
    const reason = new Error("left");
    await expect(
      ask(client, null, { started: (control) => setImmediate(() => control.abort(reason)) }),
    ).rejects.toBe(reason);
  });

  test("so many may wait, and one more is refused with a time to come back", async () => {
    const { client } = await bench((connection) => {
      connection.settings(0);
      return () => undefined;
    });
    const controls: RequestControl[] = [];
    const waiting = Array.from({ length: 1_000 }, () =>
      ask(client, null, { started: (control) => controls.push(control) }),
    );
    await expect(ask(client, null)).rejects.toMatchObject({
      code: "proxy.overloaded",
      headers: { "Retry-After": "5" },
    });
    for (const control of controls) control.abort(new Error("enough"));
    expect((await Promise.allSettled(waiting)).every(({ status }) => status === "rejected")).toBe(
      true,
    );
  });
});

test("an origin that never greets ends a request in time", async () => {
  const { client } = await bench(() => () => undefined, 50);
  await expect(ask(client, null).catch(codeOf)).resolves.toBe("upstream.timeout");
});

describe("a silence", () => {
  const head = frame(frameType.headers, flag.endHeaders, 1, block([[":status", "200"]]));

  test("of the origin ends a request, also behind a pause of its reader, and never during one", async () => {
    const { client, watched } = await bench((connection) => {
      connection.settings();
      return (next) => {
        if (endsRequest(next)) connection.socket.write(head);
      };
    });
    const begun = Promise.withResolvers<RequestControl>();
    const answered = Promise.withResolvers<void>();
    const asked = { started: begun.resolve, answered: answered.resolve };
    const failed = ask(client, null, asked).catch(codeOf);
    const control = await begun.promise;
    await answered.promise;
    const limit = (): number | undefined => watched.get(1)?.stallLimitMs();
    expect(limit()).toBe(5_000);
    control.pause();
    expect(limit()).toBe(0);
    control.resume();
    expect(limit()).toBe(5_000);
    watched.get(1)?.onStall();
    await expect(failed).resolves.toBe("upstream.timeout");
    await vi.waitFor(() => expect(watched.size).toBe(0));
  });

  test("of the client while it uploads is not the origin's", async () => {
    const { client, watched } = await bench((connection) => {
      connection.settings();
      return (next) => {
        if (next.type === frameType.data) reached.resolve();
      };
    });
    const reached = Promise.withResolvers<void>();
    const open = Promise.withResolvers<BodySink>();
    const body = { ...streamed([], false), open: (sink: BodySink) => open.resolve(sink) };
    const asked = ask(client, body).catch(codeOf);
    const sink = await open.promise;
    const stream = watched.get(1);
    const before = stream?.progress();
    sink.data(Buffer.from("x"));
    await reached.promise;
    expect(stream?.progress()).not.toBe(before);
    expect(stream?.stallLimitMs()).toBe(0);
    sink.end();
    expect(stream?.stallLimitMs()).toBe(10_000);
    stream?.onStall();
    await expect(asked).resolves.toBe("upstream.timeout");
  });
});

test("a stream has all its time where its origin takes not even the one byte that its body is", async () => {
  const { client, watched } = await bench((connection) => {
    // SETTINGS_INITIAL_WINDOW_SIZE of nothing.
    connection.socket.write(frame(frameType.settings, 0, 0, Buffer.from([0, 4, 0, 0, 0, 0])));
    return () => undefined;
  });
  const asked = ask(client, Buffer.from("x")).catch(codeOf);
  await vi.waitFor(() => expect(watched.size).toBe(1));
  const [stream] = watched.values();
  expect(stream?.progress()).not.toBe(stream?.lastSeen.progress);
  stream?.onStall();
  await expect(asked).resolves.toBe("upstream.timeout");
});

test("a body that breaks off ends its request with its own error, and the origin is told", async () => {
  const told = Promise.withResolvers<Buffer>();
  const { client } = await bench((connection) => {
    connection.settings();
    return (next) => {
      if (next.type === frameType.rstStream) told.resolve(next.payload);
    };
  });
  const error = new Error("a chunk that is none");
  const body = { ...streamed([], false), open: (sink: BodySink) => sink.fail(error) };
  await expect(ask(client, body)).rejects.toBe(error);
  expect((await told.promise).readUInt32BE()).toBe(8);
});

test("a body that breaks off behind a whole response leaves no stream open", async () => {
  const { client, watched } = await bench((connection) => {
    connection.settings();
    return (next) => {
      if (next.type === frameType.headers) connection.respond(next.stream);
    };
  });
  const { promise: opened, resolve: open } = Promise.withResolvers<BodySink>();
  await ask(client, { ...streamed([], false), open });
  expect(watched.size).toBe(1);
  (await opened).fail(new Error("the exchange is over"));
  await vi.waitFor(() => expect(watched.size).toBe(0));
});

test("what the handler of a response throws at its end is the error of that request", async () => {
  const { client } = await bench((connection) => {
    connection.settings();
    return (next) => {
      if (endsRequest(next)) connection.respond(next.stream);
    };
  });
  const error = new Error("a trailer that cannot be written");
  const ended = (): never => {
    throw error;
  };
  await expect(ask(client, null, { ended })).rejects.toBe(error);
});

describe("the fields of a request", () => {
  test("reach the origin as they are, repeated ones and those that objects inherit too", async () => {
    const seen = Promise.withResolvers<string[]>();
    const client = await clientOfNode((stream, raw) => {
      seen.resolve(raw);
      stream.respond({ ":status": 200 }, { endStream: true });
    });
    const fields = ["user-agent", "one", "user-agent", "two", "constructor", "x", "__proto__", "y"];
    await ask(client, null, { headers: ["Host", "other.test", ...fields] });
    const raw = await seen.promise;
    expect(raw.slice(8)).toEqual(fields);
    expect(raw[raw.indexOf(":authority") + 1]).toBe("other.test");
  });

  test("that HTTP/2 cannot carry fail their own request, and take up no place", async () => {
    const { client, origin } = await bench((connection) => {
      connection.settings(1);
      return (next) => {
        if (endsRequest(next)) connection.respond(next.stream);
      };
    });
    const bad = { headers: ["te", "gzip"] };
    await expect(ask(client, null, bad)).rejects.toMatchObject({ kind: "unsendable" });
    await expect(ask(client, null, bad)).rejects.toMatchObject({ kind: "unsendable" });
    await expect(ask(client, null)).resolves.toMatchObject({ status: 200 });
    expect(origin.connections).toHaveLength(1);
  });
});

describe("what one session carries", () => {
  test("a response of as many fields as over HTTP/1.1", async () => {
    const many = Array.from({ length: 300 }, (_, at) => [`x-${at}`, "v"]);
    const client = await clientOfNode((stream) => {
      stream.respond({ ...Object.fromEntries(many), ":status": 200 }, { endStream: true });
    });
    await expect(ask(client, null)).resolves.toMatchObject({ status: 200 });
  });

  test("bodies that are held whole, at once", async () => {
    const open: ServerHttp2Stream[] = [];
    const client = await clientOfNode((stream) => {
      open.push(stream);
      if (open.length < 20) return;
      for (const one of open)
        one.resume().on("end", () => one.respond({ ":status": 200 }, { endStream: true }));
    });
    const body = Buffer.alloc(1_000_000);
    const all = await Promise.all(Array.from({ length: 20 }, () => ask(client, body)));
    expect(all.every(({ status }) => status === 200)).toBe(true);
  });
});

/** A client of an origin that is Node's own. */
async function clientOfNode(
  onStream: (stream: ServerHttp2Stream, raw: string[]) => void,
): Promise<Http2Origin> {
  const server = http2.createSecureServer({ ...certificate, strictSingleValueFields: false });
  server.on(
    "stream",
    (stream: ServerHttp2Stream, _fields: unknown, _flags: unknown, raw: string[]) => {
      stream.on("error", () => undefined);
      onStream(stream, raw);
    },
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const client = clientOf((server.address() as AddressInfo).port);
  onTestFinished(() => {
    client.destroy();
    server.close();
  });
  return client;
}
