/** Real parent proxies of several makes, on loopback. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { chmod, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createServer, connect, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Server as ProxyChainServer } from "proxy-chain";
import { createServer as createSocks } from "@pondwader/socks5-server";
import type { ServerCertificate } from "./certs.ts";
import { eventually } from "./eventually.ts";
import { freePort } from "./free-port.ts";

/** What a parent is to be like. */
export interface ParentShape {
  /** User and password that it demands. */
  readonly auth?: readonly [user: string, password: string];
  readonly certificate?: ServerCertificate;
}

/** A running parent. */
export interface RealParent {
  /** With the credentials that it demands. */
  readonly url: string;
  /** The same without them. */
  readonly bareUrl: string;
  /** Authorities or URLs that it served. */
  served(): Promise<readonly string[]>;
  /** Accepts connections from now on and says nothing. */
  hang(): void;
  close(): Promise<void>;
}

const squidBinary = process.env["AUTHBRIDGE_SQUID"] ?? "squid";

/** Why squid cannot be run here, or undefined. */
export function squidMissing(): string | undefined {
  const { status, stdout } = spawnSync(squidBinary, ["-v"], { encoding: "utf8" });
  if (status !== 0) return "squid is not installed (Debian: squid-openssl)";
  return /--with-(openssl|gnutls)/.test(stdout) ? undefined : "squid was built without TLS";
}

/** squid, in a directory of its own. */
export async function startSquid(shape: ParentShape = {}): Promise<RealParent> {
  const directory = await mkdtemp(join(tmpdir(), "authbridge-squid-"));
  // As root squid becomes its own user, who has to write here.
  await chmod(directory, 0o777);
  const port = await freePort();
  const { auth, certificate } = shape;
  const lines = [
    `pid_filename ${directory}/pid`,
    `access_log stdio:${directory}/access.log`,
    `logfile_rotate 0`,
    `cache_log ${directory}/cache.log`,
    `coredump_dir ${directory}`,
    "visible_hostname parent.test",
    "cache deny all",
    "shutdown_lifetime 1 seconds",
    "forwarded_for delete",
  ];
  if (certificate === undefined) lines.push(`http_port 127.0.0.1:${port}`);
  else {
    await writeFile(join(directory, "tls.crt"), certificate.cert, { mode: 0o644 });
    await writeFile(join(directory, "tls.key"), certificate.key, { mode: 0o644 });
    lines.push(
      `https_port 127.0.0.1:${port} tls-cert=${directory}/tls.crt tls-key=${directory}/tls.key`,
    );
  }
  if (auth === undefined) lines.push("http_access allow all");
  else {
    const helper = join(directory, "helper.sh");
    await writeFile(
      helper,
      `while read -r line; do\ncase "$line" in\n${asSquidTells(auth)}) echo OK;;\n*) echo ERR;;\nesac\ndone\n`,
      { mode: 0o644 },
    );
    lines.push(
      `auth_param basic program /bin/sh ${helper}`,
      "auth_param basic children 1",
      "auth_param basic realm parent",
      "acl known proxy_auth REQUIRED",
      "http_access allow known",
      "http_access deny all",
    );
  }
  await writeFile(join(directory, "squid.conf"), `${lines.join("\n")}\n`);
  // Of its own, because shared memory is named after it.
  const service = `authbridge${port}`;
  const argv = ["-N", "-n", service, "-f", join(directory, "squid.conf")];
  const child = spawn(squidBinary, argv, { stdio: "ignore" });
  const ended = new Promise((resolve) => child.once("close", resolve));
  await eventually(() => accepts(port), 15_000);
  const scheme = certificate === undefined ? "http" : "https";
  return {
    ...urls(scheme, port, auth),
    served: async () => {
      const log = await readFile(join(directory, "access.log"), "utf8").catch(() => "");
      return log
        .split("\n")
        .map((line) => line.split(/\s+/))
        .filter(([, , , result]) => result !== undefined && !/\/(40|50)/.test(result))
        .map((fields) => fields[6] ?? "")
        .filter((target) => target !== "" && !target.startsWith("error:"));
    },
    hang: () => child.kill("SIGSTOP"),
    close: async () => {
      endProcess(child);
      await ended;
      await rm(directory, { recursive: true, force: true });
      for (const name of await readdir("/dev/shm").catch(() => []))
        if (name.startsWith(`${service}-`)) await rm(join("/dev/shm", name), { force: true });
    },
  };
}

/** squid encodes what it gives to its helpers; older ones encode less. */
function asSquidTells(auth: readonly [string, string]): string {
  const spaces = (text: string): string => text.replaceAll(" ", "%20");
  const spellings = [auth.map(encodeURIComponent), auth.map(spaces)];
  return spellings.map((words) => `"${words.join(" ")}"`).join("|");
}

function endProcess(child: ChildProcess): void {
  child.kill("SIGKILL");
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: "127.0.0.1", port });
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(false));
  });
}

function urls(
  scheme: string,
  port: number,
  auth: ParentShape["auth"],
): Pick<RealParent, "url" | "bareUrl"> {
  const authority = `127.0.0.1:${port}`;
  const user = auth === undefined ? "" : `${auth.map(encodeURIComponent).join(":")}@`;
  return { url: `${scheme}://${user}${authority}`, bareUrl: `${scheme}://${authority}` };
}

/** What is used of proxy-chain, whose own types do not fit this compiler's settings. */
interface ChainServer {
  readonly port: number;
  listen(): Promise<void>;
  on(event: string, listener: () => void): void;
  close(connections: boolean): Promise<void>;
}
interface ChainRequest {
  readonly username: string;
  readonly password: string;
  readonly hostname: string;
  readonly port: number;
}
const Chain = ProxyChainServer as unknown as new (
  options: Readonly<Record<string, unknown>>,
) => ChainServer;

/** proxy-chain from npm. */
export async function startProxyChain(shape: ParentShape = {}): Promise<RealParent> {
  const { auth, certificate } = shape;
  const served: string[] = [];
  let isHanging = false;
  const server = new Chain({
    port: 0,
    host: "127.0.0.1",
    verbose: false,
    ...(certificate === undefined
      ? { serverType: "http" }
      : { serverType: "https", httpsOptions: certificate }),
    prepareRequestFunction: async ({ username, password, hostname, port }: ChainRequest) => {
      if (isHanging) await new Promise(() => undefined);
      const isKnown = auth === undefined || (username === auth[0] && password === auth[1]);
      if (isKnown) served.push(`${hostname}:${port}`);
      return { requestAuthentication: !isKnown };
    },
  });
  server.on("requestFailed", () => undefined);
  await server.listen();
  const scheme = certificate === undefined ? "http" : "https";
  return {
    ...urls(scheme, server.port, auth),
    served: () => Promise.resolve(served),
    hang: () => {
      isHanging = true;
    },
    close: () => server.close(true),
  };
}

/** A SOCKS5 server from npm. */
export async function startSocks(shape: ParentShape = {}): Promise<RealParent> {
  const { auth } = shape;
  const served: string[] = [];
  let isHanging = false;
  const socks = createSocks(
    auth === undefined ? {} : { auth: { username: auth[0], password: auth[1] } },
  );
  socks.setRulesetValidator((connection, accept) => {
    if (isHanging) return;
    served.push(`${connection.destAddress ?? ""}:${connection.destPort ?? 0}`);
    accept();
  });
  const sockets = new Set<Socket>();
  const server: Server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => undefined);
    socket.once("close", () => sockets.delete(socket));
    socks._handleConnection(socket);
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    ...urls("socks5h", (server.address() as AddressInfo).port, auth),
    served: () => Promise.resolve(served),
    hang: () => {
      isHanging = true;
    },
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve));
      for (const socket of sockets) socket.destroy();
      await closed;
    },
  };
}
