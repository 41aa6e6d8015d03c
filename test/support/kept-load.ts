/** Clients that keep their connections and ask without a pause, and what came of each request. */
import { eventually } from "./eventually.ts";
import { type Address, RawClient } from "./http-client.ts";

/** One connection of a client. */
export interface KeptConnection {
  /** The thread that serves it, as the plugin of test/support/thread-plugins.ts says in each response. */
  readonly thread: string;
  readonly sent: number;
  readonly answered: number;
  /** Responses that were not 200. */
  readonly refused: number;
  /** Words of the file that requests were served with. */
  readonly words: ReadonlySet<string>;
  /** It ended although the client wanted more: before the response to its last request, or after one that said so. */
  readonly ended: "lost" | "closed" | undefined;
}

class Connection implements KeptConnection {
  thread = "";
  sent = 0;
  answered = 0;
  refused = 0;
  readonly words = new Set<string>();
  ended: KeptConnection["ended"];

  async run(client: RawClient, url: string, load: { readonly isOver: boolean }): Promise<void> {
    const headers = { Host: new URL(url).host };
    try {
      while (!load.isOver) {
        this.sent += 1;
        const response = await client.ask({ target: url, headers });
        this.answered += 1;
        this.thread = response.header("x-thread") ?? this.thread;
        this.words.add(response.header("x-word") ?? "");
        if (response.status !== 200) this.refused += 1;
        if (response.header("connection")?.toLowerCase() !== "close") continue;
        this.ended = "closed";
        return;
      }
    } catch {
      this.ended = "lost";
    } finally {
      client.socket.destroy();
    }
  }
}

/** So many of them, from when they are connected until they are told to end. */
export class KeptLoad {
  readonly connections: readonly KeptConnection[];
  readonly #ends: Promise<unknown>;
  readonly #load = { isOver: false };

  static async start(proxy: Address, url: string, connections: number): Promise<KeptLoad> {
    const clients = Array.from({ length: connections }, () => RawClient.connect(proxy));
    return new KeptLoad(await Promise.all(clients), url);
  }

  private constructor(clients: readonly RawClient[], url: string) {
    const made = clients.map((client) => ({ client, connection: new Connection() }));
    this.connections = made.map(({ connection }) => connection);
    this.#ends = Promise.all(
      made.map(({ client, connection }) => connection.run(client, url, this.#load)),
    );
  }

  /** Resolves when every connection that has not ended has had so many more responses. */
  async moves(times: number): Promise<void> {
    const before = this.connections.map(({ answered }) => answered);
    await eventually(() =>
      this.connections.every(
        ({ answered, ended }, at) => ended !== undefined || answered >= (before[at] ?? 0) + times,
      ),
    );
  }

  /** Resolves when all connections have ended by themselves. */
  async over(): Promise<void> {
    await this.#ends;
  }

  async stop(): Promise<void> {
    this.#load.isOver = true;
    await this.#ends;
  }

  /** Sums over its connections, or over those that are meant. */
  sums(isMeant: (connection: KeptConnection) => boolean = () => true): {
    readonly connections: number;
    readonly sent: number;
    readonly answered: number;
    readonly refused: number;
    readonly lost: number;
  } {
    const meant = this.connections.filter(isMeant);
    const sum = (of: (connection: KeptConnection) => number): number =>
      meant.reduce((total, connection) => total + of(connection), 0);
    return {
      connections: meant.length,
      sent: sum(({ sent }) => sent),
      answered: sum(({ answered }) => answered),
      refused: sum(({ refused }) => refused),
      lost: sum(({ ended }) => (ended === "lost" ? 1 : 0)),
    };
  }
}
