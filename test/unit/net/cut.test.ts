/** Connections that are cut at whatever moment of their life: each is closed, and none keeps its descriptor. */
import net, { type AddressInfo, type Socket } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { cutOff } from "../../../src/net/cut.ts";

let server: net.Server;
const accepted: Socket[] = [];

beforeAll(async () => {
  server = net.createServer({ allowHalfOpen: true }, (socket) => {
    socket.on("error", () => undefined);
    socket.resume();
    accepted.push(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});

afterAll(async () => {
  for (const socket of accepted) socket.destroy();
  await new Promise((resolve) => server.close(resolve));
});

const moments: Readonly<Record<string, (socket: Socket) => void>> = {
  "in use": () => undefined,
  "that is just ended": (socket) => void socket.end(),
  "that is ended with a last word": (socket) => void socket.end("bye"),
  "that has much to send": (socket) => void socket.write(Buffer.alloc(8_000_000)),
  "that has much to send and is ended": (socket) => void socket.end(Buffer.alloc(8_000_000)),
  "that closes when all is sent": (socket) => socket.destroySoon(),
  "that was cut before": (socket) => cutOff(socket),
  "that is destroyed": (socket) => void socket.destroy(),
};

test.each(Object.entries(moments))("a connection %s", async (_moment, prepare) => {
  const { port } = server.address() as AddressInfo;
  const socket = net.connect({ host: "127.0.0.1", port, allowHalfOpen: true });
  const errors: Error[] = [];
  socket.on("error", (error) => errors.push(error));
  await new Promise((resolve) => socket.once("connect", resolve));
  const closed = new Promise((resolve) => socket.once("close", resolve));
  prepare(socket);
  cutOff(socket);
  await closed;
  expect(errors).toEqual([]);
});

test("the other side sees that something is missing", async () => {
  const { port } = server.address() as AddressInfo;
  const socket = net.connect({ host: "127.0.0.1", port });
  socket.on("error", () => undefined);
  const [peer] = await Promise.all([
    new Promise<Socket>((resolve) => server.once("connection", resolve)),
    new Promise<void>((resolve) => socket.once("connect", resolve)),
  ]);
  const failed = new Promise<NodeJS.ErrnoException>((resolve) => peer.once("error", resolve));
  cutOff(socket);
  expect((await failed).code).toBe("ECONNRESET");
});
