/**
 * What a host of a test network serves; run as a program with its services as JSON, it writes what it sees as JSON lines.
 *
 * It answers HTTP and HTTPS with what was asked, speaks first on TCP ports, hears datagrams, and is a name server.
 */
import { createSocket } from "node:dgram";
import http from "node:http";
import https from "node:https";
import net from "node:net";

/** What one host serves. */
export interface Services {
  readonly http?: readonly number[];
  readonly https?: {
    readonly ports: readonly number[];
    readonly cert: string;
    readonly key: string;
  };
  /** TCP ports that greet and then echo. */
  readonly banner?: readonly number[];
  /** UDP ports that answer with what they got. */
  readonly udp?: readonly number[];
  /** Port of a token endpoint (RFC 8693): the token that it issues names the audience that was asked for. */
  readonly tokens?: number;
  /** Names and their addresses, served on port 53. */
  readonly dns?: Readonly<Record<string, readonly string[]>>;
}

/** One line of its output. */
export interface Seen {
  readonly kind: "ready" | "http" | "banner" | "udp" | "dns" | "token";
  readonly port?: number;
  readonly from?: string;
  readonly method?: string;
  readonly url?: string;
  readonly host?: string;
  readonly authorization?: string;
  readonly name?: string;
  readonly subject?: string;
  readonly audience?: string;
}

function say(line: Seen): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

function answer(port: number): http.RequestListener {
  return (request, response) => {
    const { method, url, headers, socket } = request;
    const seen = { method, url, host: headers.host, authorization: headers.authorization };
    say({ kind: "http", port, from: socket.remoteAddress, ...JSON.parse(JSON.stringify(seen)) });
    request.resume();
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify({ port, ...seen }));
  };
}

/** Takes every upgrade and says hello in the new protocol. */
function switching(server: http.Server): http.Server {
  return server.on("upgrade", (_request, socket) => {
    socket.on("error", () => socket.destroy());
    const head =
      "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
    socket.end(`${head}\r\nhello`);
  });
}

function issue(request: http.IncomingMessage, response: http.ServerResponse): void {
  let body = "";
  request.on("data", (chunk) => (body += String(chunk)));
  request.on("end", () => {
    const form = new URLSearchParams(body);
    const audience = form.get("audience") ?? "";
    say({ kind: "token", subject: form.get("subject_token") ?? "", audience });
    const issued = {
      access_token: `for-${audience}`,
      issued_token_type: "urn:ietf:params:oauth:token-type:access_token",
      token_type: "Bearer",
      expires_in: 300,
    };
    response.setHeader("Content-Type", "application/json");
    response.end(JSON.stringify(issued));
  });
}

function listening(server: net.Server, port: number): Promise<void> {
  return new Promise((resolve) => {
    server.listen({ port, host: "::" }, resolve);
  });
}

function greets(port: number): net.Server {
  return net.createServer((socket) => {
    socket.on("error", () => socket.destroy());
    say({
      kind: "banner",
      port,
      ...(socket.remoteAddress === undefined ? {} : { from: socket.remoteAddress }),
    });
    socket.write("220 hello\r\n");
    socket.pipe(socket);
  });
}

function hears(port: number): Promise<void> {
  const socket = createSocket({ type: "udp6" });
  socket.on("message", (message, { address, port: from }) => {
    say({ kind: "udp", port, from: address });
    socket.send(message, from, address);
  });
  return new Promise((resolve) => {
    socket.bind(port, "::", resolve);
  });
}

/** The answer to one question of class IN, type A or AAAA (RFC 1035 section 4.1). */
function resolve(query: Buffer, names: Readonly<Record<string, readonly string[]>>): Buffer {
  const labels: string[] = [];
  let at = 12;
  for (let length = query[at] ?? 0; length > 0; length = query[at] ?? 0) {
    labels.push(query.toString("latin1", at + 1, at + 1 + length));
    at += 1 + length;
  }
  const question = query.subarray(12, at + 5);
  const name = labels.join(".").toLowerCase();
  const type = query.readUInt16BE(at + 1);
  say({ kind: "dns", name });
  const wanted = (names[name] ?? []).filter((address) => (type === 28) === net.isIPv6(address));
  const isKnown = names[name] !== undefined;
  const records = type === 1 || type === 28 ? wanted.map((address) => record(type, address)) : [];
  const header = Buffer.alloc(12);
  query.copy(header, 0, 0, 2);
  // QR, RD, RA; NXDOMAIN for a name that nobody has.
  header.writeUInt16BE(0x8180 | (isKnown ? 0 : 3), 2);
  header.writeUInt16BE(1, 4);
  header.writeUInt16BE(records.length, 6);
  return Buffer.concat([header, question, ...records]);
}

function record(type: number, address: string): Buffer {
  const bytes =
    type === 1
      ? Buffer.from(address.split(".").map(Number))
      : Buffer.from(wholeIpv6(address), "hex");
  const head = Buffer.from([0xc0, 12, 0, type, 0, 1, 0, 0, 0, 5, 0, bytes.length]);
  return Buffer.concat([head, bytes]);
}

function wholeIpv6(address: string): string {
  const [head = "", tail = ""] = address.split("::");
  const groups = (text: string): string[] => text.split(":").filter((group) => group !== "");
  const missing = 8 - groups(head).length - groups(tail).length;
  const all = [...groups(head), ...Array<string>(missing).fill("0"), ...groups(tail)];
  return all.map((group) => group.padStart(4, "0")).join("");
}

async function serveNames(names: Readonly<Record<string, readonly string[]>>): Promise<void> {
  const socket = createSocket({ type: "udp6" });
  socket.on("message", (query, { address, port }) =>
    socket.send(resolve(query, names), port, address),
  );
  await new Promise<void>((done) => {
    socket.bind(53, "::", done);
  });
  const stream = net.createServer((connection) => {
    connection.on("error", () => connection.destroy());
    connection.on("data", (data) => {
      const reply = resolve(data.subarray(2), names);
      connection.end(Buffer.concat([Buffer.from([reply.length >> 8, reply.length & 255]), reply]));
    });
  });
  await listening(stream, 53);
}

const services = JSON.parse(process.argv[2] ?? "{}") as Services;
const { cert, key } = services.https ?? {};
await Promise.all([
  ...(services.http ?? []).map((port) =>
    listening(switching(http.createServer(answer(port))), port),
  ),
  ...(services.https?.ports ?? []).map((port) =>
    listening(https.createServer({ cert, key }, answer(port)), port),
  ),
  ...(services.banner ?? []).map((port) => listening(greets(port), port)),
  ...(services.udp ?? []).map(hears),
  ...(services.tokens === undefined ? [] : [listening(http.createServer(issue), services.tokens)]),
  ...(services.dns === undefined ? [] : [serveNames(services.dns)]),
]);
say({ kind: "ready" });
