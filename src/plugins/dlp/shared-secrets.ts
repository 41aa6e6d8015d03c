/**
 * Secrets that one thread holds, for the others to look for: a token is issued to one of them.
 *
 * They cross in the memory of the process, as tokens do that threads share. Each thread keeps fingerprints of them only.
 */
import type { OwnSecrets } from "../../dlp/own-secrets.ts";
import { OtherThreads } from "../../pipeline/other-threads.ts";
import type { PluginDeps } from "../../pipeline/plugin.ts";

/** That are on their way at one time; of more the others are not told. */
const maxTelling = 1_024;
/** A longer one is a file that every thread reads. */
const maxBytes = 65_536;
const ask = "?";
const tell = "+";

/** The link of one thread. It is kept over reloads. */
export class SharedSecrets {
  readonly #own: OwnSecrets;
  readonly #count: PluginDeps["count"];
  readonly #others: OtherThreads;
  readonly #end: () => void;
  #telling = 0;
  #isClosed = false;

  constructor({ shared, count }: Pick<PluginDeps, "shared" | "count">, own: OwnSecrets) {
    this.#own = own;
    this.#count = count;
    this.#others = new OtherThreads(shared, "dlp own secrets", (said) => this.#hear(said));
    this.#end = own.onNew((text) => void this.#tell(text));
    // Of two threads, one begins later, or in place of one that has ended.
    void this.#others.say(ask);
    void this.#tellAll();
  }

  close(): void {
    this.#isClosed = true;
    this.#end();
    this.#others.close();
  }

  #hear(said: string): void {
    if (said === ask) void this.#tellAll();
    else if (said.startsWith(tell)) this.#own.learn(said.slice(tell.length));
  }

  /** One after the other: there may be thousands. */
  async #tellAll(): Promise<void> {
    for (const text of this.#own.held()) {
      if (this.#isClosed) return;
      await this.#tell(text);
    }
  }

  async #tell(text: string): Promise<void> {
    if (this.#telling >= maxTelling || text.length > maxBytes) {
      this.#count("own_secret_untold");
      return;
    }
    this.#telling += 1;
    await this.#others.say(tell + text);
    this.#telling -= 1;
    this.#count("own_secret_told");
  }
}
