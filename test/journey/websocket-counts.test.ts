/** How many messages a WebSocket carried, in the event of its end. */
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { WebSocketServer } from "ws";
import { clientFrame } from "../../src/http/web-socket-frame.ts";
import { RawClient } from "../support/http-client.ts";
import { owner } from "../support/owner.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";

const own = owner();
let origin: Server;
let place: string;

beforeAll(async () => {
  const echo = new WebSocketServer({ noServer: true, perMessageDeflate: false });
  origin = createServer();
  origin.on("upgrade", (request, socket, head) =>
    echo.handleUpgrade(request, socket, head, (open) => {
      open.on("message", (data, isBinary) => {
        open.send(data, { binary: isBinary });
        // Twice for each, so that the directions differ.
        open.send("again");
      });
    }),
  );
  origin.listen(0, "127.0.0.1");
  await once(origin, "listening");
  place = `ws.test:${(origin.address() as AddressInfo).port}`;
});
afterAll(() => {
  origin.closeAllConnections();
  origin.close();
});

describe.each([
  ["spliced", {}],
  [
    "judged message by message",
    outbound({
      name: "egress-policy",
      config: {
        network_policies: {
          chat: {
            endpoints: [
              {
                host: "ws.test",
                ports: [1],
                protocol: "websocket",
                enforcement: "enforce",
                rules: [{ allow: { method: "*", path: "/**" } }],
              },
            ],
          },
        },
      },
    }),
  ],
])("a WebSocket that is %s", (kind, chain) => {
  test("is counted in both directions, fragments and control frames rightly", async () => {
    const text = JSON.stringify(chain).replace("[1]", `[${place.split(":")[1]}]`);
    const proxy = await own(
      ProxyProcess.start(
        settings({
          egress: { hosts: { "ws.test": ["127.0.0.1"] } },
          ...(JSON.parse(text) as object),
        }),
      ),
    );
    const wire = await RawClient.connect(proxy.forward);
    wire.send(
      `GET http://${place}/chat HTTP/1.1\r\nHost: ${place}\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n` +
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    expect(await wire.reader.until("\r\n\r\n")).toMatch(/^HTTP\/1\.1 101 /);
    const ping = clientFrame(0x9, Buffer.from("beat"));
    const [first, rest] = [
      clientFrame(0x1, Buffer.from("hel")),
      clientFrame(0x0, Buffer.from("lo")),
    ];
    first[0] = 0x01;
    const large = clientFrame(0x2, Buffer.alloc(70_000, 1));
    const bytes = Buffer.concat([clientFrame(0x1, Buffer.from("one")), first, ping, rest, large]);
    for (let at = 0; at < bytes.length; at += 997) wire.send(bytes.subarray(at, at + 997));
    const echoed = 5 + 7 + 7 + 7 + 10 + 70_000 + 7;
    await wire.reader.exactly(echoed + 6);
    wire.close();
    const ended = async (): Promise<unknown> => {
      const { text: body } = await proxy.sessions("/v1/sessions/default");
      const { events = [] } = JSON.parse(body) as { events?: Record<string, unknown>[] };
      return events.find(({ phase }) => phase === "response")?.["messages"];
    };
    await expect.poll(ended, { message: kind }).toEqual({ received: 3, sent: 6 });
  });
});
