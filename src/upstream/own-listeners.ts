/** The addresses that this process listens on: nothing an agent says makes the proxy dial itself. */
import { createSocket } from "node:dgram";
import { readFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import type { IpAddress } from "../net/address.ts";
import { AddressSet, classifyAddress, parseAddress, parseCidr } from "../net/address.ts";

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

  /** Whether an interface of this machine has the address. */
  isLocal(address: IpAddress): boolean {
    const plain = address.unmapped();
    return classifyAddress(plain) === "loopback" || this.#localAddresses().has(plain.toString());
  }

  /**
   * The same for an address that no interface shows: with `ip route add local 10.98.0.0/16 dev lo` all of them are ours.
   *
   * Asked after {@link owns}, for ports that are bound to every address.
   */
  async ownsByRoute(dialled: IpAddress, port: number): Promise<boolean> {
    const bound = this.#ports.get(port);
    if (bound === undefined || (!bound.has("0.0.0.0") && !bound.has("::"))) return false;
    const address = dialled.unmapped();
    if (address.version === 6) return (await localRoutes6()).contains(address);
    if (!(await canBind(address.toString()))) return false;
    // With net.ipv4.ip_nonlocal_bind foreign addresses can be bound as well, and the result says nothing.
    return !(await canBind(foreign));
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

/** An address for documentation, which no machine has (RFC 5737). */
const foreign = "192.0.2.1";

/** Whether the kernel takes the IPv4 address for one of this machine (bind(2)); nothing is sent. */
function canBind(address: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createSocket("udp4");
    const close = (isLocal: boolean): void => {
      socket.close();
      resolve(isLocal);
    };
    socket.once("error", ({ code }: NodeJS.ErrnoException) =>
      // Any other error does not say whose address it is: in doubt it counts as ours.
      close(code !== "EADDRNOTAVAIL"),
    );
    socket.bind({ address, port: 0, exclusive: true }, () => close(true));
  });
}

/** RTF_LOCAL of linux/ipv6_route.h, the highest of the bits of a route. */
const isLocalRoute = /^[89a-f]/;

/** bind(2) goes by the interfaces for IPv6, so the routes have to be read; none where this is not Linux. */
async function localRoutes6(): Promise<AddressSet> {
  const text = await readFile("/proc/net/ipv6_route", "utf8").catch(() => "");
  const routes = text.split("\n").flatMap((line) => {
    const [prefix = "", length = "", , , , , , , flags = ""] = line.trim().split(/\s+/);
    const bits = Number.parseInt(length, 16);
    // A route for everything is one of a table for marked packets, as capturing by TPROXY has it.
    if (!isLocalRoute.test(flags) || !(bits > 0)) return [];
    return [parseCidr(`${prefix.match(/.{4}/g)?.join(":") ?? ""}/${bits}`)];
  });
  return new AddressSet(routes);
}
