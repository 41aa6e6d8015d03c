/**
 * Where a redirected connection was going before the kernel gave it to us: SO_ORIGINAL_DST, which Node does not offer.
 *
 * It is asked once per connection, on the accepted socket, and costs less than a microsecond.
 */
import type { Socket } from "node:net";
import { endianness } from "node:os";
import { parseAddress } from "../address.ts";
import { loadLibc } from "./libc.ts";
import type { SocketEnd } from "./socket-table.ts";

/** Reads the original destination of accepted connections. */
export interface OriginalDestinations {
  /** Undefined where connection tracking knows of no redirection and no connection. */
  of(socket: Socket): SocketEnd | undefined;
}

// Linux: SOL_IP and SOL_IPV6 are protocol numbers; SO_ORIGINAL_DST and IP6T_SO_ORIGINAL_DST are both 80
// (linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h).
const levels = { 4: 0, 6: 41 } as const;
const originalDestinationOption = 80;
/** struct sockaddr_in6, the larger of the two. */
const addressBytes = 28;

/** The reader, or a sentence that says why this machine has none. Never rejects. */
export async function loadOriginalDestinations(): Promise<OriginalDestinations | string> {
  const libc = await loadLibc();
  if (typeof libc === "string") return libc;
  const getsockopt = libc.bind("int getsockopt(int, int, int, void *, uint32_t *)");
  const read = (fd: number, level: number): SocketEnd | undefined => {
    const address = Buffer.alloc(addressBytes);
    const length = Buffer.from(Uint32Array.of(addressBytes).buffer);
    const answer = getsockopt(fd, level, originalDestinationOption, address, length);
    return answer === 0 ? parseSockaddr(address) : undefined;
  };
  return {
    of: (socket) => {
      const fd = descriptorOf(socket);
      const local = parseAddress(socket.localAddress ?? "")?.unmapped();
      // A client that has left already has no descriptor to ask.
      if (fd === undefined || local === undefined) return undefined;
      return read(fd, levels[local.version]);
    },
  };
}

/** Reads a `struct sockaddr_in` or `sockaddr_in6`: family in the machine's order, port and address in the network's. */
export function parseSockaddr(bytes: Buffer): SocketEnd | undefined {
  if (bytes.length < 16) return undefined;
  const family = endianness() === "LE" ? bytes.readUInt16LE(0) : bytes.readUInt16BE(0);
  const port = bytes.readUInt16BE(2);
  // Linux: AF_INET is 2, AF_INET6 is 10.
  const text =
    family === 2
      ? bytes.subarray(4, 8).join(".")
      : family === 10 && bytes.length >= 24
        ? (bytes.toString("hex", 8, 24).match(/.{4}/g) ?? []).join(":")
        : "";
  const address = parseAddress(text)?.unmapped();
  if (address === undefined || port === 0) return undefined;
  return { address: address.toString(), port };
}

/** Node keeps the descriptor in an internal handle that has had this shape since its first versions. */
function descriptorOf(socket: Socket): number | undefined {
  const handle: unknown = Reflect.get(socket, "_handle");
  const fd: unknown =
    typeof handle === "object" && handle !== null ? Reflect.get(handle, "fd") : -1;
  return typeof fd === "number" && fd >= 0 ? fd : undefined;
}
