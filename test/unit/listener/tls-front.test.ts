/** TLS in front of a listener: what its clients may do, and what is counted of those that have no place. */
import { once } from "node:events";
import net from "node:net";
import { text } from "node:stream/consumers";
import tls, { type TLSSocket } from "node:tls";
import { beforeAll, expect, onTestFinished, test } from "vitest";
import { TlsFront, type TlsFrontLimits } from "../../../src/listener/tls-front.ts";
import { type ServerCertificate, TestAuthority } from "../../support/certs.ts";

let ca: TestAuthority;
let certificate: ServerCertificate;

beforeAll(async () => {
  ca = await TestAuthority.create();
  certificate = await ca.server(["localhost"]);
});

/** A client of a listening front. */
async function dialled(
  shared: TlsFrontLimits["shared"],
  onSecure: (socket: TLSSocket) => void = () => undefined,
  ALPNProtocols: string[] = [],
) {
  const refused: string[] = [];
  const limits = { maxConnections: 10, shared, handshakeTimeoutMs: 60_000 };
  const front = new TlsFront({ kind: "certificate", ...certificate }, limits, {
    onSecure,
    onRefused: (why) => refused.push(why),
  });
  front.server.listen(0, "127.0.0.1");
  await once(front.server, "listening");
  const { port } = front.address;
  const where = { host: "127.0.0.1", port, servername: "localhost", allowHalfOpen: true };
  const client = tls.connect({ ...where, ca: ca.caPem, ALPNProtocols });
  client.on("error", () => undefined);
  onTestFinished(() => {
    client.destroy();
    front.server.close();
  });
  return { client, port, refused };
}

test("a client that has said all it had to say still hears the other side", async () => {
  const { client } = await dialled(undefined, (socket) => {
    socket.resume();
    socket.once("end", () => setImmediate(() => socket.end("what follows")));
  });
  client.end("all");
  expect(await text(client)).toBe("what follows");
});

test("a client of HTTP/2 that has ended its side is gone", async () => {
  const gone = Promise.withResolvers<void>();
  const onSecure = (socket: TLSSocket): void => void socket.resume().once("close", gone.resolve);
  const { client } = await dialled(undefined, onSecure, ["h2"]);
  await once(client, "secureConnect");
  client.end();
  await gone.promise;
});

test("a handshake that its client gives up leaves its place at once", async () => {
  const left = Promise.withResolvers<void>();
  const shared = { take: () => true, leave: left.resolve };
  const { port, refused } = await dialled(shared);
  net.connect(port, "127.0.0.1").end().resume();
  await left.promise;
  expect(refused).toEqual(["malformed"]);
});

test("a connection that has no place is refused for that alone, and leaves none", async () => {
  let left = 0;
  const shared = { take: () => false, leave: () => (left += 1) };
  const { client, refused } = await dialled(shared);
  await new Promise((resolve) => client.once("close", resolve));
  await new Promise((resolve) => setImmediate(resolve));
  expect([refused, left]).toEqual([["connections"], 0]);
});
