/** What one generation needs to open TLS connections: which ones, and with what certificate. */
import type { Socket } from "node:net";
import type { Destination } from "../../net/destination.ts";
import type { AuthoritySource } from "../../tlsbridge/authority-source.ts";
import type { Interception, InterceptionDecision } from "../../tlsbridge/interception.ts";
import type { Termination, Terminator } from "../../tlsbridge/terminator.ts";

/** The bridge of one generation. */
export class TlsBridge {
  readonly #interception: Interception;
  readonly #terminator: Terminator;

  readonly #authority: AuthoritySource;

  constructor(interception: Interception, terminator: Terminator, authority: AuthoritySource) {
    this.#interception = interception;
    this.#terminator = terminator;
    this.#authority = authority;
  }

  /** When the present authority runs out. */
  get authorityNotAfter(): Date {
    return this.#authority.current.notAfter;
  }

  /** What clients have to trust at present. */
  get authorityPem(): string {
    return this.#authority.current.caPem;
  }

  decide(destination: Destination): InterceptionDecision {
    return this.#interception.decide(destination);
  }

  /** The handshake with the client; the leaf is for the permitted destination and no other name. */
  async open(
    client: Socket,
    destination: Destination,
    head: Buffer,
    signal: AbortSignal,
  ): Promise<Termination> {
    const outcome = await this.#terminator.terminate(client, {
      name: destination.host,
      head,
      signal,
    });
    if (outcome.kind === "terminated") this.#interception.forget(destination.host);
    else if (outcome.kind === "client-rejected") this.refused(destination, outcome.alert);
    else if (outcome.kind === "closed" && outcome.afterLeaf) this.refused(destination, "closed");
    return outcome;
  }

  /** Remembers that this host cannot be opened; it changes decisions under `on_failure: tunnel` only. */
  refused(destination: Destination, how: string): void {
    this.#interception.recordRefusal(destination.host, how);
  }
}
