/** What tools looked like when they were first seen: a description that changes later is a way to instruct the model. */
import { hash } from "node:crypto";
import { isObject } from "../../http/json-access.ts";

interface Pin {
  digest: string;
  /** How it was listed last in this process. */
  seen: string;
  isChanged: boolean;
  /** Whoever keeps pins elsewhere has this one as it is. */
  isKept: boolean;
}

/** A pin as it is kept elsewhere: its digest, and whether the tool was last listed differently. */
export type KeptPin = readonly [digest: string, isChanged: boolean];

/**
 * Past these nothing is forgotten, because whoever can make the list long could make it forget: what is new counts as
 * changed.
 */
const maxServers = 1000;
const maxToolsPerServer = 1000;

/** What judges need of pins. */
export type Pins = Pick<ToolPins, "observe" | "isChanged">;

/** Remembers the tools of every server. Lives as long as the process, reloads included. */
export class ToolPins {
  readonly #servers = new Map<string, Map<string, Pin>>();

  /** Compares a listed tool with what was seen first; true when it is still that. */
  observe(server: string, name: string, tool: Readonly<Record<string, unknown>>): boolean {
    const pins = this.#servers.get(server) ?? new Map<string, Pin>();
    if (!this.#servers.has(server)) {
      if (this.#servers.size >= maxServers) return false;
      this.#servers.set(server, pins);
    }
    const digest = digestOf(tool);
    const key = keyOf(name);
    const pin = pins.get(key);
    if (pin === undefined) {
      if (pins.size >= maxToolsPerServer) return false;
      pins.set(key, { digest, seen: digest, isChanged: false, isKept: false });
      return true;
    }
    const isChanged = pin.digest !== digest;
    if (isChanged !== pin.isChanged) pin.isKept = false;
    pin.isChanged = isChanged;
    pin.seen = digest;
    return !isChanged;
  }

  /** Whether some pin of the server is not kept as it is. */
  hasNews(server: string): boolean {
    for (const { isKept } of this.#servers.get(server)?.values() ?? []) if (!isKept) return true;
    return false;
  }

  /** Every pin of a server. */
  pinsOf(server: string): Readonly<Record<string, KeptPin>> {
    const pins = this.#servers.get(server) ?? [];
    return Object.fromEntries([...pins].map(([key, pin]) => [key, [pin.digest, pin.isChanged]]));
  }

  /** Takes over what others have pinned: their digest counts, and what was not told to them yet is compared with it. */
  adopt(server: string, kept: Readonly<Record<string, KeptPin>>): void {
    const pins = this.#servers.get(server) ?? new Map<string, Pin>();
    if (!this.#servers.has(server)) {
      if (this.#servers.size >= maxServers) return;
      this.#servers.set(server, pins);
    }
    for (const [key, [digest, isChanged]] of Object.entries(kept)) {
      const pin = pins.get(key);
      if (pin === undefined) {
        if (pins.size >= maxToolsPerServer) return;
        pins.set(key, { digest, seen: digest, isChanged, isKept: true });
      } else {
        pin.digest = digest;
        if (pin.isKept) pin.isChanged = isChanged;
        else pin.isChanged = pin.seen !== digest;
        pin.isKept ||= pin.isChanged === isChanged;
      }
    }
  }

  /** Whoever kept the pins has lost them. */
  untold(server: string): void {
    for (const pin of this.#servers.get(server)?.values() ?? []) pin.isKept = false;
  }

  /** Others have these pins now. */
  told(server: string, kept: Readonly<Record<string, KeptPin>>): void {
    const pins = this.#servers.get(server);
    for (const [key, [digest, isChanged]] of Object.entries(kept)) {
      const pin = pins?.get(key);
      if (pin?.digest === digest && pin.isChanged === isChanged) pin.isKept = true;
    }
  }

  /** Whether the tool was last listed differently from how it was first seen. */
  isChanged(server: string, name: string): boolean {
    return this.#servers.get(server)?.get(keyOf(name))?.isChanged ?? false;
  }
}

/** A server chooses its names, and their length. */
function keyOf(name: string): string {
  return name.length > 128 ? hash("sha256", name) : name;
}

/** `_meta` of a tool is no part of what a model reads, and may change with every response. */
function digestOf({ _meta, ...tool }: Readonly<Record<string, unknown>>): string {
  return hash("sha256", canonicalJson(tool));
}

/** The order of members says nothing. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, member: unknown) => {
    if (!isObject(member)) return member;
    return Object.fromEntries(Object.entries(member).sort(([a], [b]) => (a < b ? -1 : 1)));
  });
}
