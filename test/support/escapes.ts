/** Ways out of an enclosure, tried from inside; prints what came of each as JSON. Argument 1 says what is outside. */
import { spawnSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { Resolver } from "node:dns/promises";
import { openSync, readlinkSync, readdirSync } from "node:fs";
import { connect, type NetConnectOpts } from "node:net";

/** What the test opened outside. */
export interface Outside {
  readonly tcpPort: number;
  readonly tcp6Port: number | undefined;
  readonly udpPort: number;
  readonly abstractName: string;
  readonly ownAddress: string;
  readonly pid: number;
}

/** By the name of the way: whether it led out, and how it ended. */
export type Escapes = Readonly<Record<string, { readonly escaped: boolean; readonly how: string }>>;

const limitMs = 20_000;

function dial(options: NetConnectOpts): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(options);
    const end = (how: string): void => {
      socket.destroy();
      resolve(how);
    };
    socket.setTimeout(limitMs, () => end("timeout"));
    // A connection that is captured is accepted by the proxy: only bytes of the other side are a way out.
    socket.once("data", (data: Buffer) => end(`data ${data.toString("latin1").slice(0, 40)}`));
    socket.once("error", (error: NodeJS.ErrnoException) => end(error.code ?? error.message));
    socket.once("close", () => end("closed"));
  });
}

/** The status and the words of a program that tries; it is no way out where the program fails. */
function tried(command: string, ...args: readonly string[]): { escaped: boolean; how: string } {
  const { status, stderr, error } = spawnSync(command, args, {
    encoding: "utf8",
    timeout: limitMs,
  });
  return {
    escaped: status === 0,
    how: error?.message ?? `${status} ${stderr.trim().slice(0, 120)}`,
  };
}

function readable(path: string): { escaped: boolean; how: string } {
  try {
    openSync(path, "r");
    return { escaped: true, how: "opened" };
  } catch (error) {
    return { escaped: false, how: String(error) };
  }
}

function sendUdp(port: number, address: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = createSocket(address.includes(":") ? "udp6" : "udp4");
    socket.on("error", () => undefined);
    socket.send("escaped", port, address, (error) => {
      socket.close();
      resolve(error === null ? "sent" : String(error));
    });
  });
}

async function tryAll(outside: Outside): Promise<Escapes> {
  const { tcpPort, tcp6Port = 1, udpPort, abstractName, ownAddress, pid } = outside;
  const dialled = async (options: NetConnectOpts): Promise<{ escaped: boolean; how: string }> => {
    const how = await dial(options);
    return { escaped: how.startsWith("data"), how };
  };
  const resolver = new Resolver({ timeout: 5_000, tries: 1 });
  const named = async (name: string): Promise<{ escaped: boolean; how: string }> =>
    resolver.resolve4(name).then(
      (found) => ({ escaped: found.length > 0, how: found.join() }),
      (error: unknown) => ({ escaped: false, how: String(error) }),
    );
  const byResolver = await named("localhost.example.com");
  resolver.setServers(["8.8.8.8", ownAddress]);
  const raw = "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)";
  const packet = "import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)";
  const inherited = readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return Number(fd) > 2 && readlinkSync(`/proc/self/fd/${fd}`).startsWith("socket:");
    } catch {
      return false;
    }
  });
  return {
    "TCP to loopback outside": await dialled({ host: "127.0.0.1", port: tcpPort }),
    "TCP to an address of the machine": await dialled({ host: ownAddress, port: tcpPort }),
    "TCP over IPv6": await dialled({ host: "::1", port: tcp6Port }),
    "TLS to an address, without a name": await dialled({ host: "192.0.2.1", port: 443 }),
    // Whether they arrive is seen outside.
    UDP: {
      escaped: false,
      how: `${await sendUdp(udpPort, "127.0.0.1")} ${await sendUdp(udpPort, ownAddress)}`,
    },
    "the resolver of the machine": byResolver,
    "a resolver of one's own": await named("example.com"),
    "an abstract Unix socket": await dialled({ path: `\0${abstractName}` }),
    "a raw socket": tried("python3", "-c", raw),
    "a packet socket": tried("python3", "-c", packet),
    "the namespace of the proxy": tried("nsenter", "-t", String(pid), "-n", "true"),
    "the memory of the proxy": readable(`/proc/${pid}/mem`),
    "the descriptors of the proxy": readable(`/proc/${pid}/fd/0`),
    "another device": tried("ip", "link", "add", "escape0", "type", "dummy"),
    "other routes": tried("ip", "route", "del", "local", "0.0.0.0/0", "dev", "lo"),
    "a device of the outer namespace, from a namespace within": tried(
      "unshare",
      "--user",
      "--map-root-user",
      "--net",
      "nsenter",
      "-t",
      String(pid),
      "-n",
      "true",
    ),
    "an inherited descriptor": { escaped: inherited.length > 0, how: inherited.join() },
  };
}

if (import.meta.main) {
  const outcomes = await tryAll(JSON.parse(process.argv[2] ?? "{}") as Outside);
  process.stdout.write(`${JSON.stringify(outcomes)}\n`);
  process.exit(0);
}
