import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, onTestFinished, test } from "vitest";
import { AdminServer, json, text } from "../../../src/admin/server.ts";
import { createLogger } from "../../../src/telemetry/log.ts";
import { Metrics } from "../../../src/telemetry/metrics.ts";
import { RareLog } from "../../../src/telemetry/rare-log.ts";
import { serve } from "./client.ts";

const routes = [
  { path: "/", handle: () => text("index") },
  { path: "/open", isOpen: true, handle: () => text("open") },
  { path: "/items/", handle: ({ rest }: { rest: string }) => json({ rest }) },
  {
    path: "/broken",
    handle: () => {
      throw new Error("secret detail");
    },
  },
];

async function raw(port: number, bytes: string): Promise<string> {
  const socket = connect(port, "127.0.0.1");
  socket.setEncoding("utf8");
  let answer = "";
  socket.on("data", (chunk: string) => (answer += chunk));
  socket.write(bytes);
  await once(socket, "close");
  return answer;
}

describe("an operator server", () => {
  test("answers its paths and 404 as JSON for others", async () => {
    const { get } = await serve(routes);
    expect(await get("/")).toMatchObject({ status: 200, body: "index" });
    const missing = await get("/nothing");
    expect(missing.status).toBe(404);
    expect(missing.headers["content-type"]).toBe("application/json");
    expect(JSON.parse(missing.body)).toEqual({
      error: "request.not-found",
      message: "no such path",
    });
  });

  test.each([
    ["/items/a%20b?x=1", 200, "a b"],
    ["/items/a%2Fb", 200, "a/b"],
    ["/items/", 404, undefined],
    ["/items/%zz", 404, undefined],
    ["/items/../open", 200, undefined],
  ])("%s", async (path, status, rest) => {
    const { get } = await serve(routes);
    const answer = await get(path);
    expect(answer.status).toBe(status);
    if (rest !== undefined) expect(JSON.parse(answer.body)).toEqual({ rest });
  });

  test("HEAD has the headers of GET and no body", async () => {
    const { get } = await serve(routes);
    const answer = await get("/", { method: "HEAD" });
    expect(answer).toMatchObject({ status: 200, body: "" });
    expect(answer.headers["content-length"]).toBe("5");
  });

  test.each(["POST", "PUT", "DELETE", "OPTIONS"])("%s is refused with Allow", async (method) => {
    const { get } = await serve(routes);
    const answer = await get("/", { method });
    expect(answer.status).toBe(405);
    expect(answer.headers.allow).toBe("GET, HEAD");
  });

  test("no answer may be stored, sniffed or read by another origin", async () => {
    const { headers } = await (await serve(routes)).get("/", { headers: { origin: "http://x" } });
    expect(headers).toMatchObject({
      "cache-control": "no-store",
      "x-content-type-options": "nosniff",
    });
    expect(headers["access-control-allow-origin"]).toBeUndefined();
  });

  test("a route that throws is a 500 that says nothing, and the server goes on", async () => {
    const { get } = await serve(routes);
    const answer = await get("/broken");
    expect(answer.status).toBe(500);
    expect(answer.body).not.toContain("secret detail");
    expect((await get("/")).status).toBe(200);
  });

  test.each([
    ["nonsense", "\0\0\0\r\n\r\n", /^HTTP\/1.1 400 /],
    [
      "too many headers",
      `GET / HTTP/1.1\r\nHost: localhost\r\nX: ${"x".repeat(20_000)}\r\n\r\n`,
      /^HTTP\/1.1 400 /,
    ],
    [
      "an upgrade",
      "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
      /^HTTP\/1.1 400 /,
    ],
    ["CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", /^HTTP\/1.1 405 /],
  ])("%s is refused and closed", async (_name, bytes, expected) => {
    const { port, get } = await serve(routes);
    expect(await raw(port, bytes)).toMatch(expected);
    expect((await get("/")).status).toBe(200);
  });

  test("on loopback, a request under another name (DNS rebinding) is refused", async () => {
    const { get } = await serve(routes);
    const status = async (host: string): Promise<number> =>
      (await get("/", { headers: { host } })).status;
    expect(await status("evil.example")).toBe(421);
    expect(await status("localhost.evil.example:9094")).toBe(421);
    expect(await status("localhost:9094")).toBe(200);
    expect(await status("127.0.0.1")).toBe(200);
    expect(await status("[::1]:9094")).toBe(200);
  });
});

describe("with a secret", () => {
  const secret = { reveal: () => "s3cret" };

  test.each([
    [undefined, 401],
    ["Bearer wrong", 401],
    ["Bearer s3cret-and-more", 401],
    ["Basic s3cret", 401],
    ["Bearer s3cret", 200],
    ["bearer s3cret", 200],
  ])("Authorization: %s gives %i", async (authorization, status) => {
    const { get } = await serve(routes, { secret });
    const headers: Record<string, string> = authorization === undefined ? {} : { authorization };
    const answer = await get("/", { headers });
    expect(answer.status).toBe(status);
    if (status === 401) expect(answer.headers["www-authenticate"]).toMatch(/^Bearer/);
  });

  test("probes stay open", async () => {
    const { get } = await serve(routes, { secret });
    expect((await get("/open")).status).toBe(200);
  });

  test("a secret that is not there yet lets nobody in", async () => {
    const { get } = await serve(routes, { secret: { reveal: () => "" } });
    const answer = await get("/", { headers: { authorization: "Bearer " } });
    expect(answer.status).toBe(401);
  });
});

describe("binding", () => {
  test("a taken port is a rejection, not the end of the process", async () => {
    const other = createServer().listen(0, "127.0.0.1");
    await once(other, "listening");
    const address = other.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const server = new AdminServer({ name: "x", routes, log: createLogger("silent") });
    await expect(server.listen({ host: "127.0.0.1", port })).rejects.toMatchObject({
      code: "EADDRINUSE",
    });
    await server.close();
    other.close();
  });

  test("closing ends answers that are still open", async () => {
    const { server, open } = await serve([
      { path: "/feed", handle: () => (response) => void response.write("x") },
    ]);
    const stream = await open("/feed");
    stream.on("error", () => undefined);
    const closed = new Promise((resolve) => stream.once("close", resolve));
    stream.resume();
    await server.close();
    await closed;
  });
});

describe("other origins", () => {
  const page = { headers: { origin: "https://console.example", authorization: "Bearer s3cret" } };
  const corsOrigins = ["https://console.example"];

  test("nobody's page may read anything unless it is listed", async () => {
    const { get } = await serve(routes);
    const answer = await get("/", page);
    expect(answer.headers["access-control-allow-origin"]).toBeUndefined();
    expect((await get("/", { ...page, method: "OPTIONS" })).status).toBe(405);
  });

  test("a listed origin may, and is asked for the secret like everybody else", async () => {
    const { get } = await serve(routes, { corsOrigins, secret: { reveal: () => "s3cret" } });
    const answer = await get("/", page);
    expect(answer.status).toBe(200);
    expect(answer.headers).toMatchObject({
      "access-control-allow-origin": "https://console.example",
      vary: "Origin",
    });
    const preflight = await get("/", {
      method: "OPTIONS",
      headers: { origin: page.headers.origin },
    });
    expect(preflight.headers["access-control-allow-headers"]).toContain("Authorization");
    expect((await get("/", { headers: { origin: page.headers.origin } })).status).toBe(401);
    const other = await get("/", { headers: { ...page.headers, origin: "https://evil.example" } });
    expect(other.headers["access-control-allow-origin"]).toBeUndefined();
  });
});

test("silent connections do not keep a probe out, and are counted", async () => {
  let evicted = 0;
  const count = (reason: string): void => {
    evicted += reason === "admin" ? 1 : 0;
  };
  const { port, get } = await serve(routes, { evictions: { evicted: count } });
  const silent = Array.from({ length: 200 }, () => {
    // Keeps its half open, as a hostile peer does.
    const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
    socket.on("error", () => socket.destroy());
    return socket;
  });
  await Promise.all(
    silent.map(async (socket) => {
      if (socket.connecting) await once(socket, "connect");
    }),
  );
  const answers = await Promise.all(Array.from({ length: 20 }, () => get("/open")));
  expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 20 }, () => 200));
  // 128 have a place.
  expect(evicted).toBeGreaterThanOrEqual(72);
  for (const socket of silent) socket.destroy();
});

test("connections that were closed to make room are counted from the start, and told about once", async () => {
  const lines: string[] = [];
  const log = createLogger("info", { write: (line: string) => void lines.push(line) });
  const metrics = new Metrics({ version: "1", generation: () => 1 });
  onTestFinished(() => metrics.close());
  const rare = new RareLog(log);
  for (let at = 0; at < 3; at += 1) metrics.evictions.evicted("admin", rare, { server: "health" });
  const text = await metrics.render();
  expect(text).toContain('authbridge_evicted_total{reason="admin"} 3');
  expect(text).toContain('authbridge_evicted_total{reason="head"} 0');
  expect(lines).toHaveLength(1);
  expect(lines[0]).toContain('"server":"health"');
});

test("a client that leaves in the middle of its form is worth no line", async () => {
  const lines: string[] = [];
  const form = { path: "/form", takesForm: true, isOpen: true, handle: () => text("taken") };
  const log = createLogger("info", { write: (line) => lines.push(line) });
  const gone = Promise.withResolvers<unknown>();
  const heads = {
    add: (socket: Socket) => {
      gone.resolve(once(socket, "close"));
      return { ended: () => undefined };
    },
  };
  const server = new AdminServer({ name: "test", routes: [form], log, heads });
  const { port } = await server.listen({ host: "127.0.0.1", port: 0 });
  onTestFinished(() => server.close());
  const socket = connect(port, "127.0.0.1");
  const type = "application/x-www-form-urlencoded";
  socket.write(
    `POST /form HTTP/1.1\r\nHost: localhost\r\nContent-Type: ${type}\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\na=`,
  );
  // The server reads by now.
  await once(socket, "data");
  socket.destroy();
  await gone.promise;
  await nextTurn();
  expect(lines).toEqual([]);
});
