/** Pins in the store of `state`: replicas agree on what a tool looked like first, and a restart does not forget it. */
import { hash } from "node:crypto";
import { BoundedMap } from "../../bounded-map.ts";
import { isObject } from "../../http/json-access.ts";
import { messageOf } from "../../errors.ts";
import type { PluginDeps, RequestContext, Soon, StateStore } from "../../pipeline/plugin.ts";
import { type KeptPin, type Pins, ToolPins } from "../../policy/tools/tool-pins.ts";
import { mcpFact } from "../../protocols/mcp-message.ts";

const maxServers = 1_000;
const maxTries = 5;

/** Where pins are kept, and who is told that they could not be. */
export interface SharedPinsOptions {
  readonly state: Pick<PluginDeps["state"], "store" | "sealed">;
  readonly log: PluginDeps["log"];
}

/** The pins of a process, and of whoever shares its store. */
export class SharedPins implements Pins {
  readonly #pins = new ToolPins();
  readonly #store: StateStore;
  readonly #log: PluginDeps["log"];
  /** What was read last, so that it is parsed once. */
  readonly #read = new BoundedMap<string, string | undefined>(maxServers);
  readonly #saving = new Map<string, Promise<void>>();

  constructor({ state, log }: SharedPinsOptions) {
    // What tools are called is nobody else's business where the file has a key.
    this.#store = state.sealed ?? state.store;
    this.#log = log;
  }

  isChanged(server: string, name: string): boolean {
    return this.#pins.isChanged(server, name);
  }

  observe(server: string, name: string, tool: Readonly<Record<string, unknown>>): boolean {
    const isAsBefore = this.#pins.observe(server, name, tool);
    this.#saveSoon(server);
    return isAsBefore;
  }

  /** Reads what others have pinned; rejects where the store is away. */
  load(server: string): Soon<void> {
    const found = this.#store.get(keyOf(server));
    return found instanceof Promise
      ? found.then((text) => this.#adopt(server, text))
      : this.#adopt(server, found);
  }

  #adopt(server: string, text: string | undefined): void {
    if (this.#read.get(server) === text) return;
    this.#read.renew(server, text);
    if (text !== undefined) return this.#pins.adopt(server, pinsOf(text));
    this.#pins.untold(server);
    this.#saveSoon(server);
  }

  /** Behind the list that a tool is in: its other tools go with it. */
  #saveSoon(server: string): void {
    if (this.#saving.has(server) || !this.#pins.hasNews(server)) return;
    const saved = Promise.resolve().then(() => this.#save(server));
    this.#saving.set(
      server,
      saved.finally(() => this.#saving.delete(server)),
    );
  }

  async #save(server: string): Promise<void> {
    const key = keyOf(server);
    try {
      for (let tries = 0; tries < maxTries && this.#pins.hasNews(server); tries += 1) {
        const before = await this.#store.get(key);
        this.#adopt(server, before);
        const pins = this.#pins.pinsOf(server);
        const text = JSON.stringify({ ...(before === undefined ? {} : pinsOf(before)), ...pins });
        if (text !== before && !(await this.#store.compareAndSet(key, before, text))) continue;
        this.#read.renew(server, text);
        this.#pins.told(server, pins);
      }
    } catch (error) {
      // What is new is told with the next list.
      this.#log.warn({ server, error: messageOf(error) }, "pins of tools could not be kept");
    }
  }
}

/** Whether a message is about tools, which have pins. */
export function isAboutTools(context: RequestContext): boolean {
  const fact = context.facts.get(mcpFact);
  const messages = fact === undefined ? [] : (fact.batch ?? [fact]);
  return messages.some(({ method }) => method?.startsWith("tools/") === true);
}

function keyOf(server: string): string {
  return `pins:${hash("sha256", server, "base64url").slice(0, 24)}`;
}

/** What does not look like a pin is none. */
function pinsOf(text: string): Readonly<Record<string, KeptPin>> {
  const value: unknown = JSON.parse(text);
  if (!isObject(value)) return {};
  const pins = Object.entries(value).flatMap(([name, pin]): [string, KeptPin][] =>
    Array.isArray(pin) && typeof pin[0] === "string" ? [[name, [pin[0], pin[1] === true]]] : [],
  );
  return Object.fromEntries(pins);
}
