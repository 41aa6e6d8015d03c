import { once } from "node:events";
import net, { type AddressInfo } from "node:net";
import { expect, test } from "vitest";
import { OwnDials } from "../../../src/net/own-dials.ts";
import { eventually } from "../../support/eventually.ts";

test("knows the connections that this process opened, while they are open", async () => {
  const dials = new OwnDials();
  const server = net.createServer((socket) => socket.resume());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  try {
    const accepted = once(server, "connection") as Promise<[net.Socket]>;
    const client = net.connect((server.address() as AddressInfo).port, "127.0.0.1");
    await once(client, "connect");
    const [peer] = await accepted;
    expect(dials.has(peer.remoteAddress, peer.remotePort)).toBe(true);
    expect(dials.has(`::ffff:${peer.remoteAddress ?? ""}`, peer.remotePort)).toBe(true);
    expect(dials.has(peer.localAddress, peer.localPort)).toBe(false);
    // Asked again, now that its end has been read.
    expect(dials.has(peer.remoteAddress, peer.remotePort)).toBe(true);
    const { remoteAddress, remotePort } = peer;
    client.destroy();
    await eventually(() => !dials.has(remoteAddress, remotePort));
  } finally {
    dials.close();
    server.close();
  }
});
