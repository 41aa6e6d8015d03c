/** Who is behind a client connection: its address always, its process where a policy judges callers. */
import type { Socket } from "node:net";
import type { PeerProcess, PeerProcesses } from "../net/peer-process.ts";
import type { Client } from "../pipeline/flow.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Runtime } from "./runtime.ts";

/** Looks callers up, once per connection. */
export class Callers {
  readonly #peers: PeerProcesses;
  readonly #log: Logger;
  readonly #told = new WeakSet<PeerProcess>();

  constructor(peers: PeerProcesses, log: Logger) {
    this.#peers = peers;
    this.#log = log;
  }

  /**
   * The client of a connection; a promise only where the generation's outbound chain asks for processes.
   *
   * `credentials` is the Proxy-Authorization field. Throws ProxyError `auth.caller-unknown` where the generation
   * wants callers to say who they are and this one does not.
   */
  clientOf(socket: Socket, runtime: Runtime, credentials?: string): Client | Promise<Client> {
    const caller = runtime.callers?.authenticate(socket, credentials);
    const client = {
      address: socket.remoteAddress ?? "",
      port: socket.remotePort ?? 0,
      ...(caller === undefined ? {} : { caller }),
    };
    const links = runtime.outbound.callerLinks();
    return links === undefined ? client : this.#identified(socket, client, links);
  }

  async #identified(socket: Socket, client: Client, links: readonly string[]): Promise<Client> {
    const proxy = { address: socket.localAddress ?? "", port: socket.localPort ?? 0 };
    const found = await this.#peers.identify(socket, { client, proxy }, links);
    if (found.kind !== "resolved" && !this.#told.has(found)) {
      this.#told.add(found);
      const { kind, reason, executable, pid, ancestors, message } = found;
      this.#log.warn(
        { client: client.address, kind, reason, binary: executable, binary_pid: pid, ancestors },
        `caller not identified: ${message}`,
      );
    }
    return { ...client, process: found };
  }
}
