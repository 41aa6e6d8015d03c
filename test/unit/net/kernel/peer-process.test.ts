import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ExecutableTrust } from "../../../../src/net/kernel/executable-trust.ts";
import { PeerProcesses } from "../../../../src/net/kernel/peer-process.ts";
import {
  parseTableEnd,
  ProcSocketTable,
  type SocketTuple,
} from "../../../../src/net/kernel/socket-table.ts";

let folder: string;

beforeEach(() => {
  folder = realpathSync(mkdtempSync(join(tmpdir(), "peer-")));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

const tuple: SocketTuple = {
  client: { address: "127.0.0.1", port: 50_000 },
  proxy: { address: "127.0.0.1", port: 8080 },
};

const head =
  "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

function row(local: string, remote: string, state: string, inode: number): string {
  return `   0: ${local} ${remote} ${state} 00000000:00000000 00:00000000 00000000  1000        0 ${inode} 1 0000000000000000 20 4 30 10 -1\n`;
}

interface FakeProcess {
  readonly pid: number;
  readonly parent?: number;
  readonly sockets?: readonly number[];
  readonly exe?: string;
  readonly args?: readonly string[];
}

/** A folder in the shape of /proc, as a little-endian machine shows it. */
function fakeProc(tcp: string, processes: readonly FakeProcess[], tcp6 = ""): string {
  const root = join(folder, "proc");
  for (const name of ["self", ...processes.map(({ pid }) => String(pid))]) {
    mkdirSync(join(root, name, "net"), { recursive: true });
    writeFileSync(join(root, name, "net/tcp"), head + tcp);
    writeFileSync(join(root, name, "net/tcp6"), head + tcp6);
  }
  for (const { pid, parent = 1, sockets = [], exe, args = [] } of processes) {
    const own = join(root, String(pid));
    mkdirSync(join(own, "fd"));
    for (const [index, inode] of sockets.entries()) {
      symlinkSync(`socket:[${inode}]`, join(own, "fd", String(index + 3)));
    }
    if (exe !== undefined) symlinkSync(exe, join(own, "exe"));
    symlinkSync("/", join(own, "root"));
    writeFileSync(join(own, "cmdline"), args.join("\0"));
    writeFileSync(join(own, "stat"), `${pid} (a) b) S ${parent} ${"0 ".repeat(17)}777 0\n`);
  }
  return root;
}

function executable(name: string, content = name): string {
  const path = join(folder, name);
  writeFileSync(path, content);
  return path;
}

const ours = row("0100007F:C350", "0100007F:1F90", "01", 22_222);

describe("addresses in /proc/net/tcp", () => {
  test.each([
    ["0100007F:C350", "127.0.0.1", 50_000],
    ["0000000000000000FFFF00000100007F:C350", "127.0.0.1", 50_000],
    ["00000000000000000000000001000000:0050", "::1", 80],
  ])("%s is %s port %i", (field, address, port) => {
    expect(parseTableEnd(field)).toEqual({ address, port });
  });

  test.each(["", "0100007F", "0100007:C350", "0100007F:C35", "xx00007F:C350"])(
    "%s is none",
    (field) => {
      expect(parseTableEnd(field)).toBeUndefined();
    },
  );
});

describe("the socket of a connection", () => {
  test("is the one whose two addresses both match", async () => {
    const other = row("0100007F:C350", "0100007F:1F91", "01", 11_111);
    const root = fakeProc(other + ours, []);
    expect(await new ProcSocketTable(join(root, "self")).inodeOf(tuple)).toBe(22_222);
  });

  test("must be established and held", async () => {
    const rows =
      row("0100007F:C350", "0100007F:1F90", "06", 1) +
      row("0100007F:C350", "0100007F:1F90", "01", 0);
    const root = fakeProc(rows, []);
    expect(await new ProcSocketTable(join(root, "self")).inodeOf(tuple)).toBeUndefined();
  });

  test("is found in the IPv6 table under a mapped address", async () => {
    const mapped = (port: string): string => `0000000000000000FFFF00000100007F:${port}`;
    const root = fakeProc("", [], row(mapped("C350"), mapped("1F90"), "01", 33));
    const seen = { ...tuple, client: { address: "::ffff:127.0.0.1", port: 50_000 } };
    expect(await new ProcSocketTable(join(root, "self")).inodeOf(seen)).toBe(33);
  });

  test("is found among 20,000 others while the loop goes on", async () => {
    let rows = "";
    for (let index = 0; index < 20_000; index += 1) {
      const port = (index % 40_000).toString(16).toUpperCase().padStart(4, "0");
      rows += row(`0100007F:${port}`, "0200007F:1F90", "01", index + 100_000);
    }
    const root = fakeProc(rows + ours, []);
    let turns = 0;
    let isOver = false;
    const turn = (): void => {
      turns += 1;
      if (!isOver) setImmediate(turn);
    };
    setImmediate(turn);
    const table = new ProcSocketTable(join(root, "self"));
    const found = await Promise.all(Array.from({ length: 20 }, () => table.inodeOf(tuple)));
    isOver = true;
    expect(new Set(found)).toEqual(new Set([22_222]));
    // 3 MB in pieces of 64 KiB: the loop goes round at least once for each.
    expect(turns).toBeGreaterThan(40);
  });
});

describe("the process of a connection", () => {
  test("is the holder of its socket, with its ancestors and argument paths", async () => {
    const [curl, bash, init] = [executable("curl"), executable("bash"), executable("init")];
    const root = fakeProc(ours, [
      { pid: 1, parent: 0, exe: init },
      { pid: 40, exe: bash, args: ["bash", "/opt/run.sh"] },
      { pid: 41, parent: 40, exe: curl, sockets: [5, 22_222], args: [curl, "-o", "/tmp/x"] },
    ]);
    const peer = await new PeerProcesses({ procRoot: root }).resolve(tuple);
    expect(peer).toMatchObject({
      kind: "resolved",
      pid: 41,
      executable: curl,
      ancestors: [bash],
      commandLine: ["/tmp/x", "/opt/run.sh"],
    });
  });

  test("has ancestors up to and with the agent's entry process", async () => {
    const files = ["agent", "shell", "curl", "runtime"].map((name) => executable(name));
    const [agent, shell, curl, runtime] = files;
    const root = fakeProc(ours, [
      { pid: 9, exe: runtime ?? "" },
      { pid: 10, parent: 9, exe: agent ?? "" },
      { pid: 11, parent: 10, exe: shell ?? "" },
      { pid: 12, parent: 11, exe: curl ?? "", sockets: [22_222] },
    ]);
    const peers = new PeerProcesses({ procRoot: root, agentPid: 10 });
    expect(await peers.resolve(tuple)).toMatchObject({ ancestors: [shell, agent] });
  });

  test("is refused when different processes share the socket", async () => {
    const root = fakeProc(ours, [
      { pid: 10, exe: executable("python3"), sockets: [22_222] },
      { pid: 11, exe: executable("sleep"), sockets: [22_222] },
    ]);
    const peer = await new PeerProcesses({ procRoot: root }).resolve(tuple);
    expect(peer).toMatchObject({ kind: "violation", reason: "ambiguous-owners", pid: 10 });
  });

  test("is one when equal processes share the socket", async () => {
    const exe = executable("worker");
    const root = fakeProc(ours, [
      { pid: 11, exe, sockets: [22_222] },
      { pid: 10, exe, sockets: [22_222] },
    ]);
    const peer = await new PeerProcesses({ procRoot: root }).resolve(tuple);
    expect(peer).toMatchObject({ kind: "resolved", pid: 10 });
  });

  test("is seen to share the socket even when it is looked at first as a known owner", async () => {
    const [good, evil] = [executable("good"), executable("evil")];
    const second = row("0100007F:C351", "0100007F:1F90", "01", 33_333);
    const root = fakeProc(ours + second, [
      { pid: 10, exe: good, sockets: [22_222, 33_333] },
      { pid: 11, exe: evil, sockets: [33_333] },
    ]);
    const peers = new PeerProcesses({ procRoot: root });
    expect(await peers.resolve(tuple)).toMatchObject({ kind: "resolved", pid: 10 });
    const shared = { ...tuple, client: { address: "127.0.0.1", port: 50_001 } };
    expect(await peers.resolve(shared)).toMatchObject({ kind: "violation" });
  });

  test("keeps a name that really ends in ' (deleted)' and strips the kernel's mark otherwise", async () => {
    const odd = executable("sleepy (deleted)");
    const gone = join(folder, "gone");
    const root = fakeProc(ours, [{ pid: 10, exe: odd, sockets: [22_222] }]);
    const peers = new PeerProcesses({ procRoot: root });
    expect(await peers.resolve(tuple)).toMatchObject({ executable: odd });
    rmSync(join(root, "10/exe"));
    symlinkSync(`${gone} (deleted)`, join(root, "10/exe"));
    // The image behind a deleted name is readable in a real /proc only; here it is reported with its name.
    expect(await peers.resolve(tuple)).toMatchObject({ kind: "unresolved", executable: gone });
  });

  test("is known by the policy's symbolic links that lead to it", async () => {
    const python = executable("python3.12");
    symlinkSync("python3.12", join(folder, "python3"));
    symlinkSync(join(folder, "python3"), join(folder, "python"));
    const root = fakeProc(ours, [{ pid: 10, exe: python, sockets: [22_222] }]);
    const links = [join(folder, "python"), join(folder, "python2"), python];
    const peer = await new PeerProcesses({ procRoot: root }).resolve(tuple, links);
    expect(peer).toMatchObject({ executable: python, aliases: [join(folder, "python")] });
  });

  test("is known by a link that was not there when it was looked for before", async () => {
    const python = executable("python3.12");
    const root = fakeProc(ours, [{ pid: 10, exe: python, sockets: [22_222] }]);
    const peers = new PeerProcesses({ procRoot: root });
    const link = join(folder, "python");
    expect(await peers.resolve(tuple, [link])).toMatchObject({ aliases: [] });
    symlinkSync(python, link);
    expect(await peers.resolve(tuple, [link])).toMatchObject({ aliases: [link] });
  });

  test("has a result of its own for each of its connections, also of those made at once", async () => {
    const root = fakeProc(ours, [{ pid: 10, exe: join(folder, "gone"), sockets: [22_222] }]);
    const peers = new PeerProcesses({ procRoot: root });
    const found = await Promise.all(Array.from({ length: 6 }, () => peers.resolve(tuple)));
    const isUnreadable = expect.objectContaining({ reason: "unreadable-executable", pid: 10 });
    expect(found).toEqual(Array.from({ length: 6 }, () => isUnreadable));
    expect(new Set(found).size).toBe(6);
  });

  test("is refused once its executable is another one than at first", async () => {
    const exe = executable("tool", "original content");
    const root = fakeProc(ours, [{ pid: 10, exe, sockets: [22_222] }]);
    const peers = new PeerProcesses({ procRoot: root });
    expect(await peers.resolve(tuple)).toMatchObject({ kind: "resolved" });
    writeFileSync(exe, "tampered content");
    expect(await peers.resolve(tuple)).toMatchObject({
      kind: "violation",
      reason: "integrity",
      executable: exe,
    });
  });

  test("is unresolved in a user namespace of its own, where it mounts what it likes", async () => {
    const exe = executable("curl");
    const root = fakeProc(ours, [{ pid: 10, sockets: [22_222], exe }]);
    for (const [name, namespace] of [
      ["self", 1],
      ["10", 2],
    ] as const) {
      mkdirSync(join(root, name, "ns"));
      symlinkSync(`user:[${namespace}]`, join(root, name, "ns/user"));
    }
    expect(await new PeerProcesses({ procRoot: root }).resolve(tuple)).toMatchObject({
      kind: "unresolved",
      reason: "own-namespace",
    });
    // A sandbox that the operator has named is the one that its processes belong to.
    const agent = new PeerProcesses({ procRoot: root, agentPid: 10 });
    expect(await agent.resolve(tuple)).toMatchObject({ kind: "resolved", executable: exe });
  });

  test("is asked for once per connection", async () => {
    const root = fakeProc(ours, [{ pid: 10, exe: executable("tool"), sockets: [22_222] }]);
    const peers = new PeerProcesses({ procRoot: root });
    const connection = {};
    const first = await peers.identify(connection, tuple);
    rmSync(root, { recursive: true });
    expect(await peers.identify(connection, tuple)).toBe(first);
    expect(await peers.identify({}, tuple)).toMatchObject({ kind: "unresolved" });
  });

  test.each([
    ["no-socket", "", []],
    ["no-owner", ours, []],
    ["unreadable-executable", ours, [{ pid: 10, sockets: [22_222] }]],
  ] as const)("is unresolved with reason %s", async (reason, tcp, processes) => {
    const peers = new PeerProcesses({ procRoot: fakeProc(tcp, processes) });
    expect(await peers.resolve(tuple)).toMatchObject({ kind: "unresolved", reason });
  });

  test("is unresolved at once for another machine and on another platform", async () => {
    const away = { ...tuple, client: { address: "203.0.113.9", port: 50_000 } };
    const sockets = { inodeOf: (): never => expect.unreachable() };
    expect(await new PeerProcesses({ sockets }).resolve(away)).toMatchObject({
      reason: "remote-peer",
    });
    expect(await new PeerProcesses({ sockets, platform: "darwin" }).resolve(tuple)).toMatchObject({
      reason: "unsupported-platform",
    });
  });

  test("is unresolved when the look-up fails or never ends", async () => {
    const failing = { inodeOf: () => Promise.reject(new Error("netlink is closed")) };
    expect(await new PeerProcesses({ sockets: failing }).resolve(tuple)).toMatchObject({
      kind: "unresolved",
      reason: "fault",
    });
    const stuck = { inodeOf: () => new Promise<number>(() => undefined) };
    expect(await new PeerProcesses({ sockets: stuck, timeoutMs: 10 }).resolve(tuple)).toMatchObject(
      { kind: "unresolved", reason: "timeout" },
    );
  });
});

describe("trust on first use", () => {
  test("reads an unchanged file once, also for callers at the same time", async () => {
    const path = executable("tool", "binary content");
    const trust = new ExecutableTrust();
    const [first] = await Promise.all([trust.check(path, path), trust.check(path, path)]);
    expect(await trust.check(path, path)).toEqual(first);
    expect(first.kind).toBe("trusted");
    expect(trust.hashCount).toBe(1);
  });

  test("accepts the same content again and refuses other content", async () => {
    const path = executable("tool", "one");
    const trust = new ExecutableTrust();
    await trust.check(path, path);
    writeFileSync(path, "one");
    expect((await trust.check(path, path)).kind).toBe("trusted");
    writeFileSync(path, "two");
    expect((await trust.check(path, path)).kind).toBe("changed");
    expect((await trust.check(join(folder, "absent"), join(folder, "absent"))).kind).toBe(
      "unreadable",
    );
  });
});

describe.runIf(process.platform === "linux")("real processes", () => {
  /** Starts a program that connects, and returns the accepted connection as the proxy sees it. */
  async function accept(
    start: (port: number) => ChildProcess,
    use: (tuple: SocketTuple, child: ChildProcess) => Promise<void>,
  ): Promise<void> {
    const server = net.createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as net.AddressInfo;
    const child = start(port);
    try {
      const [socket] = (await once(server, "connection")) as [net.Socket];
      socket.on("error", () => undefined);
      const { remoteAddress = "", remotePort = 0, localAddress = "", localPort = 0 } = socket;
      await use(
        {
          client: { address: remoteAddress, port: remotePort },
          proxy: { address: localAddress, port: localPort },
        },
        child,
      );
      socket.destroy();
    } finally {
      child.kill("SIGKILL");
      server.close();
    }
  }

  const nodeClient = (port: number): ChildProcess =>
    spawn(process.execPath, ["-e", `require("net").connect(${port}, "127.0.0.1")`]);

  test("a node client is known by its executable, its pid and its parent", async () => {
    await accept(nodeClient, async (seen, child) => {
      const peer = await new PeerProcesses().resolve(seen);
      expect(peer).toMatchObject({
        kind: "resolved",
        pid: child.pid,
        executable: realpathSync(process.execPath),
      });
      expect(peer.ancestors[0]).toBe(realpathSync(process.execPath));
    });
  });

  const canUnshare = spawnSync("unshare", ["-Urm", "true"]).status === 0;

  test.runIf(canUnshare && existsSync("/bin/bash"))(
    "a program that was mounted over another's path is nobody",
    async () => {
      const victim = executable("curl");
      const script = 'mount --bind /bin/bash "$0" && exec "$0" -c "$1"';
      const dial = (port: number): string =>
        `exec 3<>/dev/tcp/127.0.0.1/${port}; read -r line <&3; :`;
      await accept(
        (port) => spawn("unshare", ["-Urm", "sh", "-c", script, victim, dial(port)]),
        async (seen) => {
          expect(await new PeerProcesses().resolve(seen)).toMatchObject({
            kind: "unresolved",
            reason: "own-namespace",
            // What it pretends to be; nothing admits it by that.
            executable: victim,
          });
        },
      );
    },
  );

  test.runIf(existsSync("/bin/bash"))(
    "a copied binary that was deleted keeps its name",
    async () => {
      const copy = join(folder, "agent-tool");
      copyFileSync(realpathSync("/bin/bash"), copy);
      const script = (port: number): readonly string[] => [
        "-c",
        `exec 3<>/dev/tcp/127.0.0.1/${port}; read -r line <&3; :`,
      ];
      await accept(
        (port) => spawn(copy, script(port), { stdio: "ignore" }),
        async (seen, child) => {
          rmSync(copy);
          const peer = await new PeerProcesses().resolve(seen);
          expect(peer).toMatchObject({ kind: "resolved", pid: child.pid, executable: copy });
        },
      );
    },
  );

  test.runIf(existsSync("/bin/bash"))(
    "a socket that a shell lends to another program is ambiguous",
    async () => {
      await accept(
        (port) =>
          spawn("/bin/bash", ["-c", `exec 3<>/dev/tcp/127.0.0.1/${port}; sleep 60; :`], {
            stdio: "ignore",
          }),
        async (seen) => {
          const peers = new PeerProcesses();
          await expect
            .poll(async () => (await peers.resolve(seen)).kind, { timeout: 5000 })
            .toBe("violation");
        },
      );
    },
  );
});
