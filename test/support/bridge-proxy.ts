/** The program with its TLS bridge on, as a process, and the ways into it: CONNECT, TLS, HTTP/1.1, HTTP/2. */
import { readFileSync } from "node:fs";
import {
  type ClientHttp2Session,
  connect as connectHttp2,
  type SecureClientSessionOptions,
} from "node:http2";
import { connect as connectTcp, type Socket } from "node:net";
import { join } from "node:path";
import { type Duplex, PassThrough } from "node:stream";
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from "node:tls";
import { fileURLToPath } from "node:url";
import { ByteReader } from "./byte-reader.ts";
import { connectStream, proxySession } from "./connect-stream.ts";
import { within } from "./eventually.ts";
import { type Ended, launch, type Launched, Program, runWith, type Settings } from "./program.ts";
import { RawClient, type RawResponse } from "./http-client.ts";
import { socksGreeting, socksRequest } from "./socks-client.ts";

const pluginModule = fileURLToPath(new URL("bridge-plugins.ts", import.meta.url));

/** What a bridge is started with. */
export interface BridgeOptions {
  /** Ports that are bridged. */
  readonly ports: readonly number[];
  /** PEM of the authority that origins are trusted by. */
  readonly originCa?: string;
  /** Names of origins, all on 127.0.0.1. */
  readonly names?: readonly string[];
  /** The outbound chain. */
  readonly plugins?: readonly unknown[];
  /** `pipeline.outbound.default`; the program's own when left out. */
  readonly otherwise?: "allow" | "deny";
  /** Further keys of `tls_bridge`. */
  readonly bridge?: Settings;
  readonly limits?: Settings;
  /** Further top-level keys. */
  readonly file?: Settings;
  /** An existing authority directory; a fresh one is generated otherwise. */
  readonly caDir?: string;
}

/** The names that every bridge of the tests knows. */
export const names: readonly string[] = [
  "api.allowed.test",
  "www.allowed.test",
  "other.allowed.test",
  "pinned.test",
  "evil.test",
];

const filesOf = ({ originCa = "" }: BridgeOptions): Record<string, string> => ({
  "origins.pem": originCa,
});

/** The file for a bridge. */
function bridgeConfig(options: BridgeOptions): Settings {
  const hosts = Object.fromEntries(
    [...names, ...(options.names ?? [])].map((name) => [name, ["127.0.0.1"]]),
  );
  return {
    listener: {
      roles: ["forward"],
      forward_proxy_addr: "127.0.0.1:0",
      session_api_addr: "127.0.0.1:0",
      health_addr: "127.0.0.1:0",
    },
    stats: { address: "127.0.0.1:0" },
    plugin_modules: [pluginModule],
    egress: { allow_ips: ["127.0.0.0/8"], hosts },
    reload: { debounce: "50ms" },
    limits: { drain_timeout: "1s", ...options.limits },
    pipeline: {
      outbound: {
        plugins: options.plugins ?? [],
        ...(options.otherwise === undefined ? {} : { default: options.otherwise }),
      },
    },
    tls_bridge: {
      mode: "enabled",
      ca_dir: options.caDir ?? "./ca",
      generate_ca: options.caDir === undefined,
      ports: options.ports,
      ...(options.originCa === undefined ? {} : { upstream_ca_bundle: "./origins.pem" }),
      ...options.bridge,
    },
    ...options.file,
  };
}

/** What came of a CONNECT. */
export interface Connected {
  readonly status: number;
  readonly answer: RawResponse | undefined;
  readonly socket: Socket;
}

/** What came of asking for a tunnel; the stream of a 200 is the tunnel. */
export interface Entered {
  readonly status: number;
  readonly text: string;
  readonly socket: Duplex;
}

/** How to open TLS in a tunnel; the name in the certificate is checked against the CONNECT host. */
export interface TunnelTls extends ConnectionOptions {
  /** Name in the ClientHello; the CONNECT host by default, none when empty. */
  readonly sni?: string;
  readonly connectHeaders?: string;
}

/** How a client asks the forward port for a tunnel. */
export type Door = "CONNECT" | "SOCKS5" | "HTTP/2 CONNECT";

/** What the statuses of a CONNECT are as replies of SOCKS5, as far as a table tells them apart. */
const socksStatus: Readonly<Record<number, number>> = {
  0: 200,
  1: 400,
  2: 403,
  3: 403,
  4: 502,
  5: 502,
};

/** A running proxy. */
export class BridgeProxy extends Program {
  readonly #caDir: string;
  readonly #sockets = new Set<{ destroy(): void }>();

  private constructor(launched: Launched, { caDir }: BridgeOptions) {
    super(launched);
    this.#caDir = caDir ?? this.path("ca");
  }

  /** Starts the program and waits until it serves. */
  static async start(options: BridgeOptions): Promise<BridgeProxy> {
    const launched = await launch(bridgeConfig(options), { files: filesOf(options) });
    return new BridgeProxy(launched, options).serving();
  }

  /** Runs the program or its `check` on a file until it ends. */
  static run(command: "check" | "run", options: BridgeOptions): Promise<Ended> {
    return runWith(command, bridgeConfig(options), { files: filesOf(options) });
  }

  /** URL of the forward listener, for `HTTPS_PROXY`. */
  get url(): string {
    return `http://127.0.0.1:${this.forward.port}`;
  }

  /** Path of the certificate that clients have to trust. */
  get caFile(): string {
    return join(this.#caDir, "ca.crt");
  }

  get ca(): string {
    return readFileSync(this.caFile, "utf8");
  }

  /** A connection to the forward listener. */
  async dial(): Promise<Socket> {
    const { host, port } = this.forward;
    const socket = connectTcp({ host, port, noDelay: true });
    this.#sockets.add(socket);
    socket.once("close", () => this.#sockets.delete(socket));
    await new Promise<void>((resolve, reject) => {
      socket.once("connect", resolve);
      socket.once("error", reject);
    });
    socket.on("error", () => undefined);
    return socket;
  }

  /** Sends CONNECT and reads its answer; the bytes after it stay in the socket. */
  async connect(authority: string, headers = ""): Promise<Connected> {
    const socket = await this.dial();
    socket.write(`CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\n${headers}\r\n`);
    const head = await within("an answer to CONNECT", readHead(socket));
    const status = Number(head.split(" ")[1]);
    if (status === 200) return { status, answer: undefined, socket };
    socket.unshift(Buffer.from(head, "latin1"));
    return { status, answer: await new RawClient(socket).response(), socket };
  }

  /** Asks for a tunnel in one of the ways that there are. */
  async enter(door: Door, authority: string): Promise<Entered> {
    if (door === "SOCKS5") return this.#socks(authority);
    if (door === "HTTP/2 CONNECT") return this.#stream(authority);
    const { status, answer, socket } = await this.connect(authority);
    return { status, text: answer?.text ?? "", socket };
  }

  async #socks(authority: string): Promise<Entered> {
    const colon = authority.lastIndexOf(":");
    const request = socksRequest(authority.slice(0, colon), Number(authority.slice(colon + 1)));
    const socket = await this.dial();
    socket.write(Buffer.concat([socksGreeting, request]));
    // Two bytes of the method, ten of the reply.
    const replies = await within(
      "a reply of SOCKS5",
      readTo(socket, ({ length }) => (length < 12 ? -1 : 12)),
    );
    const reply = replies.charCodeAt(3);
    return { status: socksStatus[reply] ?? 500, text: `reply ${reply}`, socket };
  }

  async #stream(authority: string): Promise<Entered> {
    const session = await proxySession(this.forward);
    this.#sockets.add(session);
    session.once("close", () => this.#sockets.delete(session));
    try {
      // Node keeps the low byte of each character only: these are bytes of UTF-8, as the other doors get.
      const bytes = Buffer.from(authority).toString("latin1");
      const { status, stream } = await connectStream(session, bytes);
      stream.once("close", () => session.destroy());
      const text = status === 200 ? "" : (await new ByteReader(stream).toEnd()).toString();
      return { status, text, socket: stream };
    } catch (error) {
      session.destroy();
      // nghttp2 resets a stream whose authority is none.
      if (!String(error).includes("NGHTTP2_PROTOCOL_ERROR")) throw error;
      return { status: 400, text: "reset", socket: new PassThrough() };
    }
  }

  /** A tunnel that must open. */
  async tunnel(authority: string, headers = ""): Promise<Socket> {
    const { status, answer, socket } = await this.connect(authority, headers);
    if (status !== 200) throw new Error(`CONNECT ${authority}: ${status} ${answer?.text}`);
    return socket;
  }

  /** CONNECT and a TLS handshake, with the proxy's CA trusted and nothing else. Rejects as the handshake does. */
  async tls(authority: string, options: TunnelTls = {}): Promise<TLSSocket> {
    const { sni, connectHeaders, ...rest } = options;
    const socket = await this.tunnel(authority, connectHeaders);
    const trust = rest.ca === undefined && rest.rejectUnauthorized !== false ? { ca: this.ca } : {};
    return handshake(socket, authority, { ALPNProtocols: ["http/1.1"], ...trust, ...rest }, sni);
  }

  /** A bridged HTTP/1.1 connection. */
  async http1(authority: string, options: TunnelTls = {}): Promise<RawClient> {
    return new RawClient(await this.tls(authority, options));
  }

  /** One bridged HTTP/1.1 request on a connection of its own. */
  async get(authority: string, path: string, headers = ""): Promise<RawResponse> {
    const wire = await this.http1(authority);
    try {
      return await wire.exchange(`GET ${path} HTTP/1.1\r\nHost: ${authority}\r\n${headers}\r\n`);
    } finally {
      wire.close();
    }
  }

  /** A bridged HTTP/2 session. */
  async http2(
    authority: string,
    options: TunnelTls = {},
    session: SecureClientSessionOptions = {},
  ): Promise<ClientHttp2Session> {
    const socket = await this.tls(authority, { ALPNProtocols: ["h2"], ...options });
    if (socket.alpnProtocol !== "h2") throw new Error(`ALPN gave ${String(socket.alpnProtocol)}`);
    const client = connectHttp2(`https://${authority}`, {
      ...session,
      createConnection: () => socket,
    });
    client.on("error", () => undefined);
    return client;
  }

  /** Replaces the file in one step. */
  rewrite(options: BridgeOptions): Promise<void> {
    return this.rewriteConfig(bridgeConfig(options));
  }

  override async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy();
    await super.close();
  }
}

/** A client's handshake over an open connection. */
export async function handshake(
  socket: Duplex,
  authority: string,
  options: ConnectionOptions,
  sni?: string,
): Promise<TLSSocket> {
  const host = authority.replace(/:\d+$/, "").replace(/^\[|\]$/g, "");
  const isAddress = /^[\d.]+$|:/.test(host);
  const servername = sni ?? (isAddress ? "" : host);
  const secured = connectTls({ socket, host, servername, ...options });
  return within(
    "a TLS handshake",
    new Promise<TLSSocket>((resolve, reject) => {
      secured.once("secureConnect", () => {
        secured.off("error", reject);
        secured.on("error", () => undefined);
        resolve(secured);
      });
      secured.once("error", reject);
      secured.once("close", () => {
        reject(new Error("closed during the handshake"));
      });
    }),
  );
}

/** The bytes up to the empty line; later ones are put back. */
function readHead(socket: Socket): Promise<string> {
  return readTo(socket, (seen) => {
    const at = seen.indexOf("\r\n\r\n");
    return at === -1 ? -1 : at + 4;
  });
}

/** The bytes up to where `endOf` says; later ones are put back. */
function readTo(socket: Socket, endOf: (seen: Buffer) => number): Promise<string> {
  return new Promise((resolve, reject) => {
    let seen = Buffer.alloc(0);
    const stop = (): void => {
      socket.off("readable", onReadable);
      socket.off("end", onEnd);
      socket.off("close", onEnd);
    };
    const onReadable = (): void => {
      for (;;) {
        const chunk: unknown = socket.read();
        if (!Buffer.isBuffer(chunk)) return;
        seen = Buffer.concat([seen, chunk]);
        const end = endOf(seen);
        if (end === -1) continue;
        stop();
        if (seen.length > end) socket.unshift(seen.subarray(end));
        resolve(seen.toString("latin1", 0, end));
        return;
      }
    };
    const onEnd = (): void => {
      stop();
      reject(new Error(`closed before an answer; read ${JSON.stringify(seen.toString("latin1"))}`));
    };
    socket.on("readable", onReadable);
    socket.on("end", onEnd);
    socket.on("close", onEnd);
  });
}
