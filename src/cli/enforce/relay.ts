/**
 * The first process inside the namespace: it gives loopback and the captured ports to the proxy outside, answers no name,
 * and runs the command without a privilege.
 *
 * Connections are not carried: the accepted socket itself is handed out over the channel, which the command does not have.
 */
import { execFileSync } from "node:child_process";
import { createSocket, type SocketType } from "node:dgram";
import { existsSync, lstatSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { messageOf } from "../../errors.ts";
import { runCommand } from "../child-process.ts";
import { noSuchName } from "./name-reply.ts";
import type { Begin, FromRelay } from "./relay-messages.ts";

/** Sockets of services that do things for whoever asks, and of resolvers, lie in the file system, where no namespace of networks counts. */
const hidden = [
  "/run/user",
  "/run/dbus",
  "/run/systemd",
  "/run/nscd",
  "/run/docker",
  "/run/docker.sock",
  "/run/containerd",
  "/run/crio",
  "/run/podman",
  "/run/libvirt",
  "/run/avahi-daemon",
  "/run/snapd.socket",
  // Where /var/run is no link to /run.
  "/var/run/dbus",
  "/var/run/docker.sock",
  "/var/run/nscd",
  "/tmp/.X11-unix",
];

/** No capability in any set, none to come by, and the end when this process ends. */
const unprivileged = [
  "setpriv",
  "--bounding-set=-all",
  "--inh-caps=-all",
  "--ambient-caps=-all",
  "--no-new-privs",
  "--pdeathsig=KILL",
  "--",
];

function tell(message: FromRelay, socket?: Socket): void {
  // Outside may be gone; then there is nobody to tell.
  process.send?.(message, socket, { keepOpen: false }, () => undefined);
}

function ip(...args: readonly string[]): boolean {
  try {
    execFileSync("ip", args, { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}

/** Every address is one of this machine: connections arrive here, and what listens nowhere is refused at once. */
function prepare(): boolean {
  if (!ip("link", "set", "lo", "up"))
    throw new Error("the loopback of the namespace does not come up");
  const captures = ip("route", "add", "local", "0.0.0.0/0", "dev", "lo");
  ip("-6", "route", "add", "local", "::/0", "dev", "lo");
  for (const path of hidden) {
    if (!existsSync(path) || lstatSync(path).isSymbolicLink()) continue;
    hide(path);
  }
  return captures;
}

function hide(path: string): void {
  const mount = lstatSync(path).isDirectory()
    ? ["-t", "tmpfs", "-o", "ro,size=4k", "tmpfs", path]
    : ["--bind", "/dev/null", path];
  execFileSync("mount", mount, { stdio: "ignore" });
}

function listen(host: string, port: number, kind: "forward" | "captured"): Promise<boolean> {
  // Nothing is read here: the bytes belong to who gets the socket.
  const server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) => {
    socket.on("error", () => undefined);
    tell({ kind }, socket);
  });
  return new Promise((resolve) => {
    server.on("error", () => resolve(false));
    server.listen({ host, port, ipv6Only: true, backlog: 1_024 }, () => resolve(true));
  });
}

function answerNames(type: SocketType, address: string): void {
  const socket = createSocket({ type, ipv6Only: type === "udp6" });
  socket.on("error", () => undefined);
  socket.on("message", (query, peer) => {
    const reply = noSuchName(query);
    if (reply !== undefined) socket.send(reply, peer.port, peer.address, () => undefined);
  });
  socket.bind(53, address);
}

async function serve(begin: Begin, captures: boolean): Promise<void> {
  const { command, env, proxyPort, capturedPorts, signals, hidden: files } = begin;
  for (const path of files) if (existsSync(path)) hide(path);
  if (!(await listen("127.0.0.1", proxyPort, "forward")))
    throw new Error(`port ${proxyPort} of the namespace cannot be listened on`);
  answerNames("udp4", "0.0.0.0");
  answerNames("udp6", "::");
  for (const port of captures ? capturedPorts : []) {
    if (port === proxyPort) continue;
    await listen("0.0.0.0", port, "captured");
    await listen("::", port, "captured");
  }
  const ending = await runCommand({
    command: [...unprivileged, ...command],
    env,
    passSignals: signals,
  });
  tell({ kind: "ended", ending });
}

function fail(error: unknown): void {
  tell({ kind: "failed", reason: messageOf(error) });
}

// Outside is gone: the command ends with this process.
process.on("disconnect", () => process.exit(1));
// Until the command runs, and while it does, signals of the terminal are its own.
process.on("SIGINT", () => undefined);
try {
  const captures = prepare();
  process.once("message", (message) => void serve(message as Begin, captures).catch(fail));
  tell({ kind: "ready", captures });
} catch (error) {
  fail(error);
}
