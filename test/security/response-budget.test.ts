/** Answers that unpack to much: what is held of them counts against limits.max_buffered, and is given back. */
import { afterEach, beforeEach, expect, test } from "vitest";
import { gzipSync } from "node:zlib";
import { AttackedProxy, RawOrigin } from "../support/attack-bench.ts";
import { RawClient } from "../support/http-client.ts";
import { eventually } from "../support/eventually.ts";

const mebibyte = 1_048_576;
const long = "a".repeat(30 * mebibyte);
const packed = gzipSync(`{"jsonrpc":"2.0","id":1,"result":{"text":"${long}"}}`);
/** The beginning of an event that does not end. */
const event = Buffer.from(`data: ${long}`);

let origin: RawOrigin;
let proxy: AttackedProxy;

beforeEach(async () => {
  origin = await RawOrigin.listen((socket, head) => {
    if (head.includes("POST /mcp?packed ")) {
      const fields = `Content-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: ${packed.length}`;
      socket.write(`HTTP/1.1 200 OK\r\n${fields}\r\n\r\n`);
      socket.write(packed);
    } else {
      socket.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
      socket.write(event);
    }
  });
  const rules = [{ name: "r", tools: ["t"] }];
  proxy = await AttackedProxy.start({
    limits: { max_body: "32MiB", max_buffered: "48MiB" },
    pipeline: {
      outbound: {
        plugins: [
          { name: "mcp-parser" },
          { name: "tool-policy", config: { servers: [{ name: "s", rules }] } },
        ],
      },
    },
  });
});

afterEach(async () => {
  expect(proxy.faults).toEqual([]);
  await proxy.close();
  origin.close();
});

async function ask(query: string): Promise<RawClient> {
  const client = await RawClient.connect(proxy.forward);
  const body = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"t"}}';
  const host = `127.0.0.1:${origin.port}`;
  const fields = `Host: ${host}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}`;
  return client.send(`POST http://${host}/mcp?${query} HTTP/1.1\r\n${fields}\r\n\r\n${body}`);
}

test("unpacked answers that nobody reads: the one that waits makes room for the next", async () => {
  const slow = await ask("packed");
  expect(await slow.sees("\r\n\r\n")).toMatch(/^HTTP\/1\.1 200 /);
  slow.socket.pause();
  // A client that only pauses for a moment keeps its answer; until then there is no room.
  const served = await eventually(async () => {
    const next = await ask("packed");
    const head = await next.sees("\r\n\r\n");
    next.socket.destroy();
    if (head.startsWith("HTTP/1.1 200 ")) return head;
    expect(head).toMatch(/^HTTP\/1\.1 503 /);
    return false;
  });
  expect(served).toContain("200");
  const line = await proxy.log(({ msg, outcome }) => msg === "flow" && outcome === "error");
  expect(line["reason"]).toContain("limits.max_buffered");
  slow.socket.destroy();
});

test("events that do not end", async () => {
  const [first, second] = [await ask("events"), await ask("events")];
  // An event has begun, so that the end can only be a cut; the other one is still held.
  await Promise.race([first.ended(), second.ended()]);
  const line = await proxy.log(({ msg, code }) => msg === "flow" && code !== undefined);
  expect(line["reason"]).toContain("limits.max_buffered");
  first.socket.destroy();
  second.socket.destroy();
});
