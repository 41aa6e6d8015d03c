/** Who is behind a client connection: its address always, its process where a policy judges callers. */
import type { Socket } from "node:net";
import { BoundedMap } from "../../bounded-map.ts";
import type { PeerProcess, PeerProcesses } from "../../net/kernel/peer-process.ts";
import type { SocketEnd } from "../../net/kernel/socket-table.ts";
import type { Client } from "../../pipeline/flow.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { CallerCredentials } from "./caller-authentication.ts";
import { clientTlsOf } from "./client-tls.ts";
import type { Runtime } from "./runtime.ts";

/** What a surface knows of the caller. */
export interface CallerSigns {
  readonly credentials?: CallerCredentials;
  /** The other end of the connection as the client sees it, where it is not our listener. */
  readonly reached?: SocketEnd | undefined;
}

/** How often a caller that this machine cannot identify is logged, at most. */
const quietMs = 60_000;
const maxQuiet = 1024;
const noLinks: readonly string[] = [];

/** Looks callers up, once per connection. */
export class Callers {
  readonly #always: boolean;
  readonly #peers: PeerProcesses;
  readonly #log: Logger;
  readonly #told = new WeakSet<PeerProcess>();
  /** Results for connections that made a request before. */
  readonly #known = new WeakMap<Socket, PeerProcess>();
  /** When the line about callers of a remote address was written last. */
  readonly #toldRemote = new BoundedMap<string, number>(maxQuiet);

  /** With `always`, processes are looked up also where no policy asks. */
  constructor(peers: PeerProcesses, log: Logger, always = false) {
    this.#always = always;
    this.#peers = peers;
    this.#log = log;
  }

  /**
   * The client of a connection; a promise only where the generation's outbound pipeline or the file asks for processes.
   *
   * Throws ProxyError `auth.caller-unknown` where the generation
   * wants callers to say who they are and this one does not.
   */
  clientOf(socket: Socket, runtime: Runtime, signs: CallerSigns = {}): Client | Promise<Client> {
    const caller = runtime.callers?.authenticate(socket, signs.credentials);
    const client = {
      address: socket.remoteAddress ?? "",
      port: socket.remotePort ?? 0,
      caller,
      tls: clientTlsOf(socket),
    };
    const links = runtime.outbound.callerLinks() ?? (this.#always ? noLinks : undefined);
    if (links === undefined) return client;
    const known = this.#known.get(socket);
    if (known !== undefined) return { ...client, process: known };
    // The socket of a captured client shows the original destination as its peer, not this listener.
    const proxy = signs.reached ?? {
      address: socket.localAddress ?? "",
      port: socket.localPort ?? 0,
    };
    return this.#identified(socket, { client, proxy }, links);
  }

  async #identified(
    socket: Socket,
    { client, proxy }: { readonly client: Client; readonly proxy: SocketEnd },
    links: readonly string[],
  ): Promise<Client> {
    const found = await this.#peers.identify(socket, { client, proxy }, links);
    if (found.kind !== "resolved" && !this.#told.has(found)) {
      this.#told.add(found);
      this.#tell(client, found);
    }
    this.#known.set(socket, found);
    return { ...client, process: found };
  }

  #tell(client: Client, found: Exclude<PeerProcess, { readonly kind: "resolved" }>): void {
    const { reason, message, executable, pid, ancestors } = found;
    const { address, port } = client;
    const facts = { client: address, port, reason, binary: executable, binary_pid: pid, ancestors };
    if (found.kind === "violation") {
      this.#log.error(facts, `caller refused: ${message}`);
    } else if (!this.#isQuiet(address, reason)) {
      this.#log.warn(facts, `caller not identified, judged as <unresolved>: ${message}`);
    }
  }

  /** Whether the same was logged for this address recently; true only for facts that cannot change. */
  #isQuiet(address: string, reason: string): boolean {
    if (reason !== "remote-peer" && reason !== "unsupported-platform") return false;
    const now = performance.now();
    const last = this.#toldRemote.get(address);
    if (last !== undefined && now - last < quietMs) return true;
    this.#toldRemote.set(address, now);
    return false;
  }
}
