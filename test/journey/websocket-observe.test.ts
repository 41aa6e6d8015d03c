/** Under on_error: observe messages of WebSockets are recorded, and go on as they would without the plugin. */
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { WebSocket, WebSocketServer } from "ws";
import { eventually, within } from "../support/eventually.ts";
import { owner } from "../support/owner.ts";
import { sumOf } from "../support/program.ts";
import { outbound, ProxyProcess, settings } from "../support/proxy.ts";
import * as doors from "../support/web-socket-doors.ts";

const own = owner();
const card = "4111111111111111";
const large = "x".repeat(100_000);
const heard: string[] = [];

let server: ReturnType<typeof createServer>;
const peers = new WebSocketServer({ noServer: true });

beforeAll(async () => {
  server = createServer();
  server.on("upgrade", (request, socket, head) => {
    peers.handleUpgrade(request, socket, head, (peer) => {
      peer.on("message", (data: Buffer) => {
        heard.push(data.toString());
        peer.send(data.toString());
      });
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
});
afterAll(() => {
  for (const peer of peers.clients) peer.terminate();
  server.close();
});

const side = { detectors: ["financial"], response_detectors: ["financial"], action: "refuse" };
const observing = { name: "dlp", id: "seen", on_error: "observe", config: { default: side } };
/** Refuses one word of the client, and does not look at what comes back. */
const refusing = `export const plugins = [{
  name: "refuser", description: "", create: () => ({
    onMessage: (_context, { data }) => data.toString() === "refused"
      ? { action: "deny", reason: "said", denial: { code: "policy.forbidden", message: "no" } }
      : undefined,
  }),
}];`;

async function through(...plugins: readonly object[]): Promise<[ProxyProcess, WebSocket]> {
  const proxy = await own(
    ProxyProcess.start(
      settings({
        limits: { max_body: "64KiB" },
        plugin_modules: ["./refuser.mjs"],
        ...outbound(...plugins),
      }),
      { files: { "refuser.mjs": refusing } },
    ),
  );
  const authority = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  const door = await own(doors.door(doors.absoluteForm(proxy.forward.port, authority)));
  const socket = new WebSocket(`ws://127.0.0.1:${door.number}/chat`);
  await within("open", once(socket, "open"));
  return [proxy, socket];
}

async function echoOf(socket: WebSocket, text: string): Promise<string> {
  const said = Promise.race([once(socket, "message"), once(socket, "close")]);
  socket.send(text);
  return String((await within("an echo", said))[0]);
}

test("what is found is counted as a shadow, and what is too large to be read goes on", async () => {
  const [proxy, socket] = await through(observing);
  expect(await echoOf(socket, card)).toBe(card);
  // Once for each side.
  await eventually(async () => {
    const labels = { plugin: "dlp", shadow: "true" };
    return sumOf((await proxy.stats("/metrics")).text, "authbridge_denials_total", labels) === 2;
  });
  expect(await echoOf(socket, large)).toBe(large);
  expect(heard).toContain(large);
  expect(await echoOf(socket, "after it")).toBe("after it");
  socket.terminate();
});

test("beside a plugin that can refuse, only what that one reads has a limit", async () => {
  const [, socket] = await through(observing, { name: "refuser" });
  expect(await echoOf(socket, card)).toBe(card);
  peers.clients.forEach((peer) => peer.send(large));
  const [said] = (await within("the large one", once(socket, "message"))) as [Buffer];
  expect(said.toString()).toBe(large);
  expect(await echoOf(socket, "refused")).toBe("1008");
});
