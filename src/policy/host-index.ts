/** Finds what was filed under a host: exact names by map, patterns by the labels after their last wildcard. */
import { Glob } from "../pattern/glob.ts";

interface Filed<T> {
  readonly pattern: Glob;
  readonly items: T[];
}

/** An index from hosts and host patterns to items; canonical hosts in, items in filing order of each kind out. */
export class HostIndex<T> {
  readonly #exact = new Map<string, T[]>();
  readonly #bySuffix = new Map<string, Filed<T>[]>();
  readonly #filed = new Map<string, Filed<T>>();
  readonly #any: T[] = [];

  /** Files an item; the empty host and a lone star stand for every host. */
  add(host: string, item: T): void {
    if (host === "" || host === "*" || host === "**") this.#any.push(item);
    else if (host.includes("*")) this.#addPattern(host, item);
    else push(this.#exact, host, item);
  }

  #addPattern(host: string, item: T): void {
    const known = this.#filed.get(host);
    if (known !== undefined) {
      known.items.push(item);
      return;
    }
    const filed = { pattern: new Glob(host, ["."]), items: [item] };
    this.#filed.set(host, filed);
    const labels = host.split(".");
    const last = labels.findLastIndex((label) => label.includes("*"));
    push(this.#bySuffix, labels.slice(last + 1).join("."), filed);
  }

  /** Calls back with every item whose host matches. */
  forEach(host: string, visit: (item: T, isExact: boolean) => void): void {
    for (const item of this.#exact.get(host) ?? []) visit(item, true);
    if (this.#bySuffix.size > 0) {
      // A pattern needs at least one label before its fixed end, so the whole host is no suffix.
      for (let dot = host.indexOf("."); dot !== -1; dot = host.indexOf(".", dot + 1)) {
        this.#visitPatterns(host, host.slice(dot + 1), visit);
      }
      this.#visitPatterns(host, "", visit);
    }
    for (const item of this.#any) visit(item, false);
  }

  #visitPatterns(host: string, suffix: string, visit: (item: T, isExact: boolean) => void): void {
    for (const { pattern, items } of this.#bySuffix.get(suffix) ?? []) {
      if (!pattern.matches(host)) continue;
      for (const item of items) visit(item, false);
    }
  }
}

function push<V>(map: Map<string, V[]>, key: string, value: V): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}
