/** The addresses that this process listens on: nothing an agent says makes the proxy dial itself. */
import { networkInterfaces } from "node:os";
import type { IpAddress } from "../net/address.ts";
import { classifyAddress, parseAddress } from "../net/address.ts";

const interfacesTtlMs = 5_000;

/** Knows every bound address; app/ adds them as listeners bind. */
export class OwnListeners {
  readonly #ports = new Map<number, Set<string>>();
  #local: ReadonlySet<string> = new Set();
  #localReadAt = Number.NEGATIVE_INFINITY;

  /** Adds a bound address; `0.0.0.0` and `::` stand for every address of this machine. */
  add(address: string, port: number): void {
    const canonical = parseAddress(address)?.unmapped().toString() ?? address;
    const bound = this.#ports.get(port) ?? new Set<string>();
    bound.add(canonical);
    this.#ports.set(port, bound);
  }

  /** True when dialling this address and port would reach one of the listeners. */
  owns(dialled: IpAddress, port: number): boolean {
    const address = dialled.unmapped();
    const bound = this.#ports.get(port);
    if (bound === undefined) return false;
    const text = address.toString();
    if (bound.has(text)) return true;
    if (!bound.has("0.0.0.0") && !bound.has("::")) {
      // A listener on one loopback address is also reached by 0.0.0.0, which the kernel reads as loopback.
      return classifyAddress(address) === "unspecified";
    }
    const kind = classifyAddress(address);
    return kind === "loopback" || kind === "unspecified" || this.#localAddresses().has(text);
  }

  #localAddresses(): ReadonlySet<string> {
    const now = performance.now();
    if (now - this.#localReadAt > interfacesTtlMs) {
      const all = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? []);
      this.#local = new Set(all.map(({ address }) => parseAddress(address)?.toString() ?? address));
      this.#localReadAt = now;
    }
    return this.#local;
  }
}
