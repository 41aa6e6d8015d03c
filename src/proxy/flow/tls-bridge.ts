/** What one generation needs to open TLS connections: which ones, and with what certificate. */
import type { Socket } from "node:net";
import { BoundedMap } from "../../bounded-map.ts";
import type { Destination } from "../../net/destination.ts";
import type { AuthoritySource } from "../../tlsbridge/authority-source.ts";
import type { Interception, InterceptionDecision } from "../../tlsbridge/interception.ts";
import type { Termination, Terminator } from "../../tlsbridge/terminator.ts";

/** A client whose trust was mended is told inside TLS again after this at the latest. */
const distrustTtlMs = 600_000;

/** The bridge of one generation. */
export class TlsBridge {
  readonly #interception: Interception;
  readonly #terminator: Terminator;

  readonly #authority: AuthoritySource;
  readonly #distrusting = new BoundedMap<string, number>(4_096);

  constructor(interception: Interception, terminator: Terminator, authority: AuthoritySource) {
    this.#interception = interception;
    this.#terminator = terminator;
    this.#authority = authority;
  }

  /**
   * Remembers whether a client takes our leaf. It only decides how a refusal is told: inside TLS, or where a client
   * that would not see it there looks. One that leaves without a word may have had other reasons: it counts where the
   * client has a name (`address name`) and is no passer-by.
   */
  noteTrust(client: string, outcome: Termination): void {
    const isRefused =
      outcome.kind === "client-rejected" ||
      (outcome.kind === "closed" && outcome.afterLeaf && client.includes(" "));
    if (outcome.kind === "terminated") this.#distrusting.delete(client);
    else if (isRefused) this.#distrusting.renew(client, Date.now());
  }

  /** Whether the last leaf that this client was shown, not long ago, was none for it. */
  isDistrustedBy(client: string): boolean {
    const since = this.#distrusting.get(client);
    return since !== undefined && Math.abs(Date.now() - since) < distrustTtlMs;
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
