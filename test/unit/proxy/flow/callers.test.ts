import type { Socket } from "node:net";
import { pino } from "pino";
import { describe, expect, test, vi } from "vitest";
import { ProxyError } from "../../../../src/errors.ts";
import type { PeerProcess, PeerProcesses } from "../../../../src/net/kernel/peer-process.ts";
import { Callers } from "../../../../src/proxy/flow/callers.ts";
import type { Runtime } from "../../../../src/proxy/flow/runtime.ts";

const found = { kind: "resolved", executable: "/usr/bin/agent" } as unknown as PeerProcess;

function unresolved(kind: string, reason: string): PeerProcess {
  return { kind, reason, message: `because of ${reason}` } as unknown as PeerProcess;
}

function socketOf(remoteAddress: string, remotePort = 40_000): Socket {
  return { remoteAddress, remotePort, localAddress: "127.0.0.1", localPort: 8_080 } as Socket;
}

/** A generation whose plugins judge callers with these links, or do not judge them. */
function generation(links: readonly string[] | undefined, callers?: unknown): Runtime {
  return { outbound: { callerLinks: () => links }, callers } as unknown as Runtime;
}

function bench(...results: readonly PeerProcess[]) {
  const identify = vi.fn(() =>
    Promise.resolve(results.at(identify.mock.calls.length - 1) ?? found),
  );
  const lines: { level: number; msg: string; client: string }[] = [];
  const log = pino({}, { write: (line) => void lines.push(JSON.parse(line)) });
  return { identify, lines, callers: new Callers({ identify } as unknown as PeerProcesses, log) };
}

describe("the client of a connection", () => {
  test("is its address alone, at once, where no plugin judges callers", () => {
    const { callers, identify } = bench();
    expect(callers.clientOf(socketOf("127.0.0.1"), generation(undefined))).toMatchObject({
      address: "127.0.0.1",
      port: 40_000,
    });
    expect(identify).not.toHaveBeenCalled();
  });

  test("has its process also where nobody judges it but the file asks for it", async () => {
    const identify = vi.fn(() => Promise.resolve(found));
    const peers = { identify } as unknown as PeerProcesses;
    const callers = new Callers(peers, pino({ enabled: false }), true);
    const client = await callers.clientOf(socketOf("127.0.0.1"), generation(undefined));
    expect(client).toMatchObject({ process: found });
  });

  test("has its process, which is looked up once per connection", async () => {
    const { callers, identify } = bench();
    const socket = socketOf("127.0.0.1");
    for (let count = 0; count < 3; count += 1)
      expect(await callers.clientOf(socket, generation([]))).toMatchObject({ process: found });
    expect(identify).toHaveBeenCalledOnce();
    await callers.clientOf(socketOf("127.0.0.1"), generation([]));
    expect(identify).toHaveBeenCalledTimes(2);
  });

  test("is looked up by the address that it reached, where that is not our listener", async () => {
    const { callers, identify } = bench();
    const reached = { address: "192.0.2.1", port: 443 };
    await callers.clientOf(socketOf("127.0.0.1"), generation([]), { reached });
    const ends = expect.objectContaining({ proxy: reached });
    expect(identify).toHaveBeenCalledWith(expect.anything(), ends, []);
  });

  test("is refused where it has to say who it is and does not", () => {
    const authenticate = (): never => {
      throw new ProxyError("auth.caller-unknown", "no credentials");
    };
    const { callers, identify } = bench();
    const runtime = generation([], { authenticate });
    expect(() => callers.clientOf(socketOf("127.0.0.1"), runtime)).toThrow("no credentials");
    expect(identify).not.toHaveBeenCalled();
  });
});

describe("a client without a process", () => {
  const logged = async (results: readonly PeerProcess[], addresses: readonly string[]) => {
    const { callers, lines } = bench(...results);
    for (const address of addresses) await callers.clientOf(socketOf(address), generation([]));
    return lines.map(({ level, client }) => [level, client]);
  };

  test("of another machine is logged once in a while per address", async () => {
    const remote = () => unresolved("unresolved", "remote-peer");
    expect(
      await logged([remote(), remote(), remote()], ["192.0.2.1", "192.0.2.1", "192.0.2.2"]),
    ).toEqual([
      [40, "192.0.2.1"],
      [40, "192.0.2.2"],
    ]);
  });

  test("for a reason that may change is logged each time", async () => {
    const gone = () => unresolved("unresolved", "fault");
    expect(await logged([gone(), gone()], ["127.0.0.1", "127.0.0.1"])).toHaveLength(2);
  });

  test("that must not be used is an error", async () => {
    const violation = unresolved("violation", "shared-socket");
    expect(await logged([violation], ["127.0.0.1"])).toEqual([[50, "127.0.0.1"]]);
  });

  test("is logged once for one result, whatever number of connections has it", async () => {
    const one = unresolved("unresolved", "fault");
    expect(await logged([one, one], ["127.0.0.1", "127.0.0.1"])).toHaveLength(1);
  });
});
