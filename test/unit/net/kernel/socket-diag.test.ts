import { once } from "node:events";
import { readlinkSync } from "node:fs";
import net from "node:net";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { SocketDiag } from "../../../../src/net/kernel/socket-diag.ts";
import { SocketLookup } from "../../../../src/net/kernel/socket-lookup.ts";
import { ProcSocketTable, type SocketTuple } from "../../../../src/net/kernel/socket-table.ts";

const opened = await SocketDiag.open();
if (typeof opened === "string") console.log(`SKIPPED: netlink: ${opened}`);

let server: net.Server;
let client: net.Socket;
let accepted: net.Socket;

async function connect(host: string): Promise<SocketTuple> {
  server.listen(0, "::");
  await once(server, "listening");
  client = net.connect((server.address() as net.AddressInfo).port, host);
  [accepted] = (await once(server, "connection")) as [net.Socket];
  const { remoteAddress = "", remotePort = 0, localAddress = "", localPort = 0 } = accepted;
  return {
    client: { address: remoteAddress, port: remotePort },
    proxy: { address: localAddress, port: localPort },
  };
}

/** The inode of the client's end, as its own descriptor says. */
function ownInode(): number {
  const { fd } = (client as unknown as { _handle: { fd: number } })._handle;
  return Number(/\d+/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[0]);
}

beforeEach(() => {
  server = net.createServer();
});

afterEach(() => {
  client?.destroy();
  accepted?.destroy();
  server.close();
});

describe.skipIf(typeof opened === "string")("netlink SOCK_DIAG", () => {
  const diag = typeof opened === "string" ? undefined : opened;

  test.each(["127.0.0.1", "::1"])("finds the client's end of a connection to %s", async (host) => {
    const tuple = await connect(host);
    expect(await diag?.inodeOf(tuple)).toBe(ownInode());
    expect(await new ProcSocketTable("/proc/self").inodeOf(tuple)).toBe(ownInode());
  });

  test("compares all four values, and knows no socket that is not established", async () => {
    const tuple = await connect("127.0.0.1");
    const { client: one, proxy } = tuple;
    expect(await diag?.inodeOf({ client: proxy, proxy: one })).not.toBe(ownInode());
    for (const other of [
      { client: { ...one, port: one.port ^ 1 }, proxy },
      { client: { ...one, address: "127.0.0.2" }, proxy },
      { client: one, proxy: { ...proxy, port: 1 } },
      { client: one, proxy: { ...proxy, address: "127.0.0.2" } },
      // The listener answers to its own address alone; it is no connection.
      { client: proxy, proxy: { address: "127.0.0.1", port: 0 } },
    ]) {
      expect(await diag?.inodeOf(other)).toBeUndefined();
    }
  });
});

test("without netlink the tables of /proc are read, and it is said once", async () => {
  const reasons: string[] = [];
  const lookup = new SocketLookup({
    open: () => Promise.resolve("no koffi"),
    onFallback: (reason) => reasons.push(reason),
  });
  const tuple = await connect("127.0.0.1");
  expect(await lookup.inodeOf(tuple)).toBe(ownInode());
  expect(await lookup.inodeOf(tuple)).toBe(ownInode());
  expect(reasons).toEqual(["no koffi"]);
});

test("a kernel that stops answering is left for the tables", async () => {
  const reasons: string[] = [];
  let closed = 0;
  const diag = {
    inodeOf: () => Promise.reject(new Error("gone")),
    close: () => (closed += 1),
  };
  const lookup = new SocketLookup({
    open: () => Promise.resolve(diag),
    onFallback: (reason) => reasons.push(reason),
  });
  const tuple = await connect("127.0.0.1");
  expect(await lookup.inodeOf(tuple)).toBe(ownInode());
  expect({ reasons, closed }).toEqual({ reasons: ["gone"], closed: 1 });
});
