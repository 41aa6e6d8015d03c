/** SOCKS5 clients of the forward proxy: their dialogue, and from its last byte on what a CONNECT is. */
import type { Socket } from "node:net";
import { HeaderList } from "../http/headers.ts";
import { Slots } from "../net/slots.ts";
import { peek } from "../net/sniff.ts";
import type { Destination } from "../net/destination.ts";
import { ProxyError } from "../errors.ts";
import { type SurfaceServices, serveRequest } from "../proxy/exchange/arrival.ts";
import { sendLast } from "../proxy/flow/final-response.ts";
import type { HttpHandlers, HttpLimits, ProtocolServer } from "../proxy/exchange/http-server.ts";
import type { CallerCredentials } from "../proxy/flow/caller-authentication.ts";
import { denialOf, statusOf } from "../proxy/flow/reply.ts";
import type { Denial } from "../pipeline/decision.ts";
import type { AskedTunnels } from "../proxy/tunnel/asked.ts";
import type { TunnelReplies } from "../proxy/tunnel/request.ts";
import type { SocksOutcome } from "../telemetry/catalogue.ts";
import type { ServerExchange } from "../wire/server-exchange.ts";
import {
  credentialsReply,
  methodReply,
  methods,
  readCredentials,
  readGreeting,
  readRequest,
  refusalReply,
  SocksRefusal,
  succeeded,
} from "./socks-messages.ts";

/** Which port this is, and how long a dialogue may take. */
export interface SocksOptions extends Pick<HttpLimits, "headerTimeoutMs"> {
  readonly surface: "forward" | "socks";
}

/** What a client asked for. */
interface Asked {
  readonly destination: Destination;
  readonly credentials: CallerCredentials;
}

const nothing = Buffer.alloc(0);

const replies: TunnelReplies = {
  established: (client) => client.write(succeeded),
  refused: (client, { status }, code = "") => client.write(refusalReply(code, status)),
};

/** Leads the dialogues of one surface. */
export class SocksServer implements ProtocolServer {
  readonly #services: SurfaceServices;
  readonly #tunnels: AskedTunnels;
  readonly #options: SocksOptions;
  /** Connections that have not asked for anything yet. */
  readonly #open = new Slots<Socket>();

  constructor(services: SurfaceServices, tunnels: AskedTunnels, options: SocksOptions) {
    this.#services = services;
    this.#tunnels = tunnels;
    this.#options = options;
  }

  /** Serves a connection whose first bytes were put back. */
  serve(socket: Socket): void {
    void this.#serve(socket);
  }

  drain(): void {
    this.close();
  }

  close(): void {
    for (const socket of this.#open) socket.destroy();
  }

  /** Never rejects. */
  async #serve(socket: Socket): Promise<void> {
    socket.on("error", ignore);
    const slot = this.#open.add(socket);
    const head = this.#services.heads.add(socket);
    const dialogue = new Dialogue(socket, this.#options.headerTimeoutMs);
    let asked: Asked | SocksOutcome;
    try {
      asked = await this.#lead(socket, dialogue);
    } catch (error) {
      asked = this.#refused(socket, error);
    }
    head.close();
    this.#open.delete(slot);
    const { metrics } = this.#services.recorder;
    const outcome = typeof asked === "string" ? asked : "requested";
    metrics.counters.socks_dialogues_total.of(outcome).value += 1;
    if (outcome === "timeout") metrics.refused("timeout");
    if (typeof asked === "string") return;
    const { destination, credentials } = asked;
    const headers = new HeaderList([]);
    const read = { client: socket, destination, credentials, headers, head: nothing, replies };
    this.#tunnels.open(
      () => read,
      (error) => {
        const denial = denialOf(error);
        this.#record(socket, error);
        sendLast(socket, refusalReply(denial.code, statusOf(denial)));
      },
    );
  }

  /** The outcome of a dialogue that its client did not bring to its end; throws SocksRefusal. */
  async #lead(socket: Socket, dialogue: Dialogue): Promise<Asked | SocksOutcome> {
    const offered = await dialogue.next(readGreeting);
    if (typeof offered === "string") return offered;
    let credentials: CallerCredentials;
    if (offered.has(methods.none) && this.#refusal(socket, undefined) === undefined)
      socket.write(methodReply(methods.none));
    else if (offered.has(methods.password)) {
      socket.write(methodReply(methods.password));
      const given = await dialogue.next(readCredentials);
      if (typeof given === "string") return given;
      const refusal = this.#refusal(socket, given);
      if (refusal !== undefined) throw new SocksRefusal(refusal, credentialsReply(false));
      socket.write(credentialsReply(true));
      credentials = given;
    } else throw new SocksRefusal(this.#noMethod(socket), methodReply(methods.unacceptable));
    const destination = await dialogue.next(readRequest);
    return typeof destination === "string" ? destination : { destination, credentials };
  }

  /** Why the forward proxy would not take this caller, by the generation that serves now. */
  #refusal(socket: Socket, credentials: CallerCredentials): ProxyError | undefined {
    const { callers } = this.#services.runtimes.runtime;
    try {
      callers?.authenticate(socket, credentials);
      return undefined;
    } catch (error) {
      if (error instanceof ProxyError) return error;
      throw error;
    }
  }

  #noMethod(socket: Socket): ProxyError {
    const message = "the client offers neither user name and password nor no authentication";
    return this.#refusal(socket, undefined) ?? new ProxyError("request.malformed", message);
  }

  #refused(socket: Socket, error: unknown): SocksOutcome {
    const { fault, bytes } =
      error instanceof SocksRefusal ? error : { fault: error, bytes: nothing };
    this.#record(socket, fault);
    sendLast(socket, bytes);
    return fault instanceof ProxyError && fault.code === "auth.caller-unknown"
      ? "caller"
      : "refused";
  }

  #record(socket: Socket, error: unknown): void {
    const { surface } = this.#options;
    const client = socket.remoteAddress ?? "";
    this.#services.recorder.malformed(error, { surface, client, method: "CONNECT" });
  }
}

/** Reads message after message of one client, all of them within one time. */
class Dialogue {
  readonly #socket: Socket;
  readonly #endsAt: number;

  constructor(socket: Socket, timeoutMs: number) {
    this.#socket = socket;
    this.#endsAt = performance.now() + timeoutMs;
  }

  #leftMs(): number {
    return Math.max(1, this.#endsAt - performance.now());
  }

  /** What is behind the message stays in the socket. Rejects with what `read` throws. */
  async next<T extends object>(
    read: (seen: Buffer) => { readonly value: T; readonly length: number } | undefined,
  ): Promise<T | "closed" | "timeout"> {
    const socket = this.#socket;
    // A stream's listeners have no place for what is thrown.
    const look = (seen: Buffer) => {
      try {
        const found = read(seen);
        return found && { kind: "found" as const, ...found };
      } catch (error) {
        return { kind: "refused" as const, error };
      }
    };
    const found = lookAtOnce(socket, look) ?? (await peek(socket, look, this.#leftMs()));
    switch (found.kind) {
      case "found":
        socket.read(found.length);
        return found.value;
      case "refused":
        throw found.error;
      case "timeout":
        socket.destroy();
        return "timeout";
      case "closed":
        socket.destroy();
        return "closed";
    }
  }
}

/** What is found in the bytes that are there, which are put back: a client rarely sends a message in pieces. */
function lookAtOnce<T>(socket: Socket, look: (seen: Buffer) => T | undefined): T | undefined {
  const seen: unknown = socket.read();
  if (!Buffer.isBuffer(seen)) return undefined;
  socket.unshift(seen);
  return look(seen);
}

/** A port for nothing but SOCKS. Who takes it for a web proxy is told so. */
export class SocksPort implements HttpHandlers {
  readonly surface = "socks";
  readonly socks: SocksServer;
  readonly #services: SurfaceServices;

  constructor(services: SurfaceServices, tunnels: AskedTunnels, limits: HttpLimits) {
    this.#services = services;
    this.socks = new SocksServer(services, tunnels, { ...limits, surface: this.surface });
  }

  onRequest(exchange: ServerExchange): void {
    const route = (): never => {
      throw new ProxyError("request.malformed", noHttp);
    };
    serveRequest(this.#services, { surface: this.surface, route }, exchange);
  }

  onConnect(): Denial {
    return { code: "request.malformed", message: noHttp };
  }
}

const noHttp =
  "this port speaks SOCKS5 (listener.socks_proxy_addr): HTTP proxies are at listener.forward_proxy_addr";

function ignore(): void {
  // `close` follows.
}
