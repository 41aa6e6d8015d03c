/** Connections to origins: bounds in all, for each destination and each caller; turns; 503 with a time to come back. */
import { createServer, type IncomingMessage, request as ask, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, expect, test } from "vitest";
import { BridgeProxy } from "../support/bridge-proxy.ts";
import { TestAuthority } from "../support/certs.ts";
import { eventually } from "../support/eventually.ts";
import { oneThread, type Settings } from "../support/program.ts";
import { ProxyProcess, settings } from "../support/proxy.ts";
import { TlsOrigin } from "../support/tls-origin.ts";

const closing: (() => unknown)[] = [];

afterEach(async () => {
  for (const close of closing.splice(0).toReversed()) await close();
});

/** An origin that answers `/quick` at once and holds every other request until it is let go. */
class HoldingOrigin {
  readonly held: ServerResponse[] = [];
  #port = 0;

  async listen(): Promise<this> {
    const server = createServer((request, response) => {
      if (request.url === "/quick") response.end("quick");
      else this.held.push(response);
    });
    server.on("upgrade", (_request, socket) => {
      socket.on("error", () => undefined).on("end", () => socket.end());
      socket.write(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n",
      );
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    this.#port = (server.address() as AddressInfo).port;
    closing.push(() => {
      server.closeAllConnections();
      server.close();
    });
    return this;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  release(): void {
    for (const response of this.held.splice(0)) response.end("held");
  }
}

interface Answer {
  readonly status: number;
  readonly retryAfter: string | undefined;
  readonly text: string;
}

/** One request through the proxy from this loopback address. */
function fetchFrom(proxy: ProxyProcess, localAddress: string, url: string): Promise<Answer> {
  const { host, port } = proxy.forward;
  return new Promise((resolve, reject) => {
    const headers = { host: new URL(url).host };
    const sent = ask({ host, port, localAddress, path: url, headers, agent: false }, (answer) => {
      void textOf(answer).then((text) =>
        resolve({
          status: answer.statusCode ?? 0,
          retryAfter: answer.headers["retry-after"],
          text,
        }),
      );
    });
    sent.once("error", reject);
    sent.end();
  });
}

async function textOf(message: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of message) text += String(chunk);
  return text;
}

const alone = (file: Settings): Settings => oneThread("threads divide what queues", file);

async function started(limits: Settings): Promise<ProxyProcess> {
  const proxy = await ProxyProcess.start(alone(settings({ limits })));
  closing.push(() => proxy.close());
  return proxy;
}

test("more requests than one destination may have wait for their turn", async () => {
  const origin = await new HoldingOrigin().listen();
  const other = await new HoldingOrigin().listen();
  const proxy = await started({ max_upstream_connections_per_destination: 2 });
  const answers = [1, 2, 3, 4].map(() => fetchFrom(proxy, "127.0.0.1", `${origin.url}/held`));
  await eventually(() => origin.held.length === 2);
  expect((await fetchFrom(proxy, "127.0.0.1", `${other.url}/quick`)).status).toBe(200);
  expect(origin.held).toHaveLength(2);
  origin.release();
  await eventually(() => origin.held.length === 2);
  origin.release();
  expect((await Promise.all(answers)).map(({ status }) => status)).toEqual([200, 200, 200, 200]);
});

test("a caller that uses up its share is 503 with Retry-After, counted and told once; others are served", async () => {
  const origin = await new HoldingOrigin().listen();
  const proxy = await started({
    max_upstream_connections_per_caller: 2,
    connect_timeout: "200ms",
  });
  const held = [1, 2].map(() => fetchFrom(proxy, "127.0.0.1", `${origin.url}/held`));
  await eventually(() => origin.held.length === 2);
  const refused = await Promise.all(
    [1, 2, 3].map(() => fetchFrom(proxy, "127.0.0.1", `${origin.url}/quick`)),
  );
  for (const { status, retryAfter, text } of refused) {
    expect(status).toBe(503);
    expect(Number(retryAfter)).toBeGreaterThan(0);
    expect(text).toContain("proxy.overloaded");
    expect(text).toContain("limits.max_upstream_connections_per_caller");
  }
  expect((await fetchFrom(proxy, "127.0.0.2", `${origin.url}/quick`)).status).toBe(200);
  expect(await proxy.metric("authbridge_upstream_refused_total", { limit: "caller" })).toBe(3);
  origin.release();
  expect((await Promise.all(held)).map(({ status }) => status)).toEqual([200, 200]);
  expect((await fetchFrom(proxy, "127.0.0.1", `${origin.url}/quick`)).status).toBe(200);
  await proxy.stop();
  const lines = proxy.logs.filter(({ limit }) => limit === "caller");
  expect(lines).toHaveLength(1);
  expect(lines[0]).toMatchObject({ caller: "127.0.0.1", level: "warn" });
});

test("a connection that became something else keeps its place until it is closed", async () => {
  const origin = await new HoldingOrigin().listen();
  const proxy = await started({ max_upstream_connections: 1 });
  const { host, port } = proxy.forward;
  const upgraded = ask({
    host,
    port,
    path: `${origin.url}/up`,
    headers: { host: new URL(origin.url).host, connection: "upgrade", upgrade: "echo" },
    agent: false,
  });
  upgraded.end();
  const socket = await new Promise<NodeJS.WritableStream>((resolve, reject) => {
    upgraded.once("upgrade", (_answer, switched) => resolve(switched));
    upgraded.once("response", ({ statusCode }) => reject(new Error(String(statusCode))));
    upgraded.once("error", reject);
  });
  const before = await proxy.metric("authbridge_client_connections");
  const order: string[] = [];
  const waiting = fetchFrom(proxy, "127.0.0.1", `${origin.url}/quick`).then(({ status }) =>
    order.push(String(status)),
  );
  await eventually(
    async () => (await proxy.metric("authbridge_client_connections")) === before + 1,
  );
  order.push("closed");
  socket.end();
  await waiting;
  expect(order).toEqual(["closed", "200"]);
});

test("streams of one client connection are no way around the bound", async () => {
  const authority = await TestAuthority.create();
  const origin = await TlsOrigin.start(await authority.server(["api.allowed.test"]));
  closing.push(() => origin.close());
  const proxy = await BridgeProxy.start({
    file: alone({}),
    ports: [origin.port],
    originCa: authority.caPem,
    limits: { max_upstream_connections: 3, connect_timeout: "1s" },
  });
  closing.push(() => proxy.close());
  const client = await proxy.http2(origin.at("api.allowed.test"));
  closing.push(() => client.destroy());
  const statuses: number[] = [];
  for (let count = 0; count < 17; count += 1) {
    // A head whose body never comes.
    const stream = client.request({ ":method": "POST", ":path": "/slow" });
    stream.once("response", (fields) => statuses.push(Number(fields[":status"])));
    stream.on("error", () => undefined);
  }
  await eventually(() => statuses.length === 14);
  expect(new Set(statuses)).toEqual(new Set([503]));
  expect(origin.accepted).toBe(3);
});
