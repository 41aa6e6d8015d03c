/** What was found for a host and port, for as many as strangers may name. */
import { BoundedMap } from "../bounded-map.ts";

const maxHosts = 512;
const maxPortsOfHost = 16;

/** Remembers what `find` says; two look-ups cost less than a text that both are put into. */
export class PlaceMemo<T extends object> {
  readonly #find: (host: string, port: number) => T;
  readonly #hosts = new BoundedMap<string, BoundedMap<number, T>>(maxHosts);

  constructor(find: (host: string, port: number) => T) {
    this.#find = find;
  }

  of(host: string, port: number): T {
    let ports = this.#hosts.get(host);
    if (ports === undefined) {
      ports = new BoundedMap(maxPortsOfHost);
      this.#hosts.set(host, ports);
    }
    let found = ports.get(port);
    if (found === undefined) {
      found = this.#find(host, port);
      ports.set(port, found);
    }
    return found;
  }
}
