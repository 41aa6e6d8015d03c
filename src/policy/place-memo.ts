/** What was found for a host and port, for as many as strangers may name. */

const maxPlaces = 512;

/** Remembers what `find` says; two look-ups cost less than a text that both are put into. */
export class PlaceMemo<T extends object> {
  readonly #find: (host: string, port: number) => T;
  readonly #hosts = new Map<string, Map<number, T>>();
  #size = 0;

  constructor(find: (host: string, port: number) => T) {
    this.#find = find;
  }

  of(host: string, port: number): T {
    return this.#hosts.get(host)?.get(port) ?? this.#add(host, port);
  }

  #add(host: string, port: number): T {
    const found = this.#find(host, port);
    // All at once: to know the oldest would cost more than to find those in use again.
    if (this.#size >= maxPlaces) {
      this.#hosts.clear();
      this.#size = 0;
    }
    const ports = this.#hosts.get(host) ?? new Map<number, T>();
    this.#hosts.set(host, ports.set(port, found));
    this.#size += 1;
    return found;
  }
}
