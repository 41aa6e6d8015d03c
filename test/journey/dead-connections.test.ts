/** Kept connections that died unseen, as behind a NAT or a load balancer that forgot them: RFC 9110 section 9.2.2. */
import type { Socket } from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { AttackedProxy, RawOrigin } from "../support/attack-bench.ts";
import { RawClient } from "../support/http-client.ts";
import { eventually } from "../support/eventually.ts";

const ok = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const kept = 5;

let origin: RawOrigin;
let proxy: AttackedProxy;
let isDoomed = false;
/** Connections that die at their next use, and how. */
let dead: Set<Socket>;
let die: (socket: Socket) => void;
/** Heads on connections that were not dead. */
let served: string[];

beforeEach(async () => {
  dead = new Set();
  isDoomed = false;
  served = [];
  die = (socket) => socket.resetAndDestroy();
  let waiting: Socket[] = [];
  origin = await RawOrigin.listen((socket, head) => {
    if (isDoomed || dead.has(socket)) {
      die(socket);
    } else if (head.includes("/together")) {
      waiting.push(socket);
      if (waiting.length < kept) return;
      for (const one of waiting) {
        dead.add(one);
        one.write(ok);
      }
      waiting = [];
    } else if (/^[A-Z]+ /.test(head)) {
      served.push(head);
      socket.write(head.includes("websocket") ? switched : ok);
    }
  });
  proxy = await AttackedProxy.start({
    listener: {
      roles: ["forward", "reverse"],
      reverse_proxy_addr: "127.0.0.1:0",
      reverse_proxy_backend: `http://127.0.0.1:${origin.port}`,
    },
  });
});

const switched =
  "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

afterEach(async () => {
  expect(proxy.faults).toEqual([]);
  await proxy.close();
  origin.close();
});

type Port = "forward" | "reverse";

async function ask(port: Port, method: string, path: string, rest = "\r\n"): Promise<string> {
  const host = `127.0.0.1:${origin.port}`;
  const target = port === "forward" ? `http://${host}${path}` : path;
  const client = await RawClient.connect(proxy[port]);
  client.send(`${method} ${target} HTTP/1.1\r\nHost: ${host}\r\n${rest}`);
  const seen = await client.sees("\r\n\r\n");
  client.socket.destroy();
  return seen;
}

/** Leaves connections in the pool that are dead without a sign of it. */
async function keepDead(port: Port): Promise<void> {
  await Promise.all(Array.from({ length: kept }, () => ask(port, "GET", "/together")));
  await eventually(() => dead.size === kept);
}

describe.each(["forward", "reverse"] as const)("on the %s port", (port) => {
  test.each([
    ["GET", "\r\n"],
    ["HEAD", "\r\n"],
    ["OPTIONS", "\r\n"],
    ["DELETE", "\r\n"],
    ["DELETE", "Content-Length: 4\r\n\r\nbody"],
    ["PUT", "Content-Length: 4\r\n\r\nbody"],
    ["PUT", "Transfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n"],
    ["PUT", "Content-Length: 0\r\n\r\n"],
    ["GET", "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"],
  ])("%s %j is sent once again, on a new connection", async (method, rest) => {
    await keepDead(port);
    expect(await ask(port, method, "/again", rest)).toMatch(/^HTTP\/1\.1 (?:200|101) /);
    expect(served).toHaveLength(1);
    const fresh = origin.connections.at(-1);
    expect(fresh?.seen.includes("body")).toBe(rest.includes("body"));
    expect(origin.connections).toHaveLength(kept + 1);
  });

  test("the connections behind the dead one are not used either", async () => {
    await keepDead(port);
    const answers = await Promise.all(
      Array.from({ length: kept }, () => ask(port, "GET", "/again")),
    );
    for (const answer of answers) expect(answer).toMatch(/^HTTP\/1\.1 200 /);
  });

  test.each([
    ["POST", "Content-Length: 4\r\n\r\nbody"],
    ["PATCH", "Content-Length: 4\r\n\r\nbody"],
    ["PUT", `Content-Length: 300000\r\n\r\n${"x".repeat(300_000)}`],
  ])(
    "%s is not sent again: it may have been carried out, or is not known any more",
    async (method, rest) => {
      await keepDead(port);
      // Dies once everything has come.
      die = (socket) =>
        void eventually(() => {
          const { seen } = origin.connections.find((client) => client.socket === socket) ?? {
            seen: "",
          };
          return seen.endsWith(rest.slice(-4)) && seen.length > rest.length;
        }).then(() => socket.resetAndDestroy());
      expect(await ask(port, method, "/again", rest)).toMatch(/^HTTP\/1\.1 502 /);
      expect(served).toEqual([]);
    },
  );

  test.each(["H", "HTTP/1.1 200 OK\r\nX: a", "HTTP/1.1 103 Early Hints\r\n\r\n"])(
    "what was answered with %j is not sent again",
    async (beginning) => {
      await keepDead(port);
      die = (socket) => {
        socket.write(beginning);
        // The end comes after these bytes; a reset could overtake them.
        socket.end();
      };
      const seen = await ask(port, "GET", "/again");
      expect(seen).toMatch(/HTTP\/1\.1 (?:502|103) /);
      expect(served).toEqual([]);
    },
  );

  test("a second death is a fault", async () => {
    await keepDead(port);
    isDoomed = true;
    expect(await ask(port, "GET", "/again")).toMatch(/^HTTP\/1\.1 502 /);
    expect(origin.seen.match(/\/again/g)).toHaveLength(2);
  });
});
