/** What tools looked like when they were first seen: a description that changes later is a way to instruct the model. */
import { hash } from "node:crypto";
import { isObject } from "../../http/json-access.ts";

interface Pin {
  readonly digest: string;
  isChanged: boolean;
}

/**
 * Past these nothing is forgotten, because whoever can make the list long could make it forget: what is new counts as
 * changed.
 */
const maxServers = 1000;
const maxToolsPerServer = 1000;

/** Remembers the tools of every server. It is kept over reloads. */
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
      pins.set(key, { digest, isChanged: false });
      return true;
    }
    pin.isChanged = pin.digest !== digest;
    return !pin.isChanged;
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
