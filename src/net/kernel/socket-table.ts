/**
 * Which socket of this machine is the other end of an accepted connection: from its two addresses to its inode.
 *
 * The tables of /proc/net are read in pieces, each of which takes well under a millisecond of the event loop, and
 * callers that ask while a reading is under way share the next one.
 */
import { open } from "node:fs/promises";
import { endianness } from "node:os";
import { type IpAddress, parseAddress } from "../address.ts";
import { BatchedLookup } from "./batched-lookup.ts";

/** One end of a connection. */
export interface SocketEnd {
  readonly address: string;
  readonly port: number;
}

/** A connection as the accepting side sees it. */
export interface SocketTuple {
  readonly client: SocketEnd;
  readonly proxy: SocketEnd;
}

/** Finds the inode of the client's end of a connection; undefined when this machine has no such socket. */
export interface SocketOwnerLookup {
  inodeOf(tuple: SocketTuple): Promise<number | undefined>;
  close?(): void;
}

const pieceBytes = 65_536;
/** About 400,000 sockets; a table beyond that is not searched to its end. */
const maxTableBytes = 64 << 20;
/** TCP_ESTABLISHED of include/net/tcp_states.h. */
const established = "01";

/** Looks sockets up in `net/tcp` and `net/tcp6` under a process's folder in /proc. */
export class ProcSocketTable implements SocketOwnerLookup {
  readonly #folder: string;
  readonly #lookup: BatchedLookup<string, number>;

  /** `folder` is that of a process in the network namespace to look in, e.g. `/proc/self`. */
  constructor(folder: string) {
    this.#folder = folder;
    this.#lookup = new BatchedLookup((wanted) => this.#read(wanted));
  }

  async inodeOf(tuple: SocketTuple): Promise<number | undefined> {
    const key = rowKey(tuple);
    return key === undefined ? undefined : await this.#lookup.ask(key);
  }

  async #read(wanted: ReadonlySet<string>): Promise<ReadonlyMap<string, number>> {
    const found = new Map<string, number>();
    await scanTable(`${this.#folder}/net/tcp`, 8, wanted, found);
    if (found.size < wanted.size) await scanTable(`${this.#folder}/net/tcp6`, 32, wanted, found);
    return found;
  }
}

/** Both ends as 16 bytes each, so that IPv4 and IPv4-mapped IPv6 are one: the client's end is the local one. */
function rowKey({ client, proxy }: SocketTuple): string | undefined {
  const local = parseAddress(client.address);
  const remote = parseAddress(proxy.address);
  if (local === undefined || remote === undefined) return undefined;
  return `${endKey(local, client.port)} ${endKey(remote, proxy.port)}`;
}

function endKey(address: IpAddress, port: number): string {
  return `${address.unmapped().toString()} ${port}`;
}

/** Reads an address field of /proc/net/tcp: 32-bit words in the machine's byte order, then the port. */
export function parseTableEnd(field: string): SocketEnd | undefined {
  const [hex = "", port = ""] = field.split(":");
  if (!/^(?:[0-9A-F]{8}|[0-9A-F]{32})$/i.test(hex) || !/^[0-9A-F]{4}$/i.test(port))
    return undefined;
  const bytes = Buffer.from(hex, "hex");
  if (endianness() === "LE") bytes.swap32();
  const text =
    bytes.length === 4 ? bytes.join(".") : (bytes.toString("hex").match(/.{4}/g) ?? []).join(":");
  const address = parseAddress(text);
  if (address === undefined) return undefined;
  return { address: address.unmapped().toString(), port: Number.parseInt(port, 16) };
}

async function scanTable(
  path: string,
  hexDigits: number,
  wanted: ReadonlySet<string>,
  found: Map<string, number>,
): Promise<void> {
  const needles = new Map<string, string>();
  for (const key of wanted) {
    const needle = rowText(key, hexDigits);
    if (needle !== undefined && !found.has(key)) needles.set(needle, key);
  }
  if (needles.size === 0) return;
  const file = await open(path, "r").catch(() => undefined);
  // A kernel without IPv6 has no tcp6; a process that has ended has neither.
  if (file === undefined) return;
  try {
    const buffer = Buffer.allocUnsafe(pieceBytes);
    const search = { width: 2 * (hexDigits + 5) + 1, needles, found };
    let kept = 0;
    for (let total = 0; total < maxTableBytes && needles.size > 0;) {
      const { bytesRead } = await file.read(buffer, kept, pieceBytes - kept, null);
      if (bytesRead === 0) return;
      total += bytesRead;
      const text = buffer.toString("latin1", 0, kept + bytesRead);
      const end = text.lastIndexOf("\n") + 1;
      scanRows(text, end, search);
      kept = text.length - end;
      // A row longer than a piece is none of the kernel's.
      if (kept >= pieceBytes) return;
      buffer.copyWithin(0, end, text.length);
    }
  } finally {
    await file.close();
  }
}

interface Search {
  /** Characters of the two address columns. */
  readonly width: number;
  /** Address columns that are looked for, and the sockets that they stand for. */
  readonly needles: Map<string, string>;
  /** Inodes by socket. */
  readonly found: Map<string, number>;
}

/** Compares the two address columns and the state of each whole row with the needles. */
function scanRows(text: string, end: number, { width, needles, found }: Search): void {
  for (let start = 0; start < end;) {
    const newline = text.indexOf("\n", start);
    const line = text.slice(start, newline);
    start = newline + 1;
    const columns = line.indexOf(": ") + 2;
    const needle = line.slice(columns, columns + width);
    const key = needles.get(needle);
    if (key === undefined || !line.startsWith(` ${established} `, columns + width)) continue;
    const inode = Number(line.trim().split(/\s+/)[9]);
    // A socket that no process holds any more has no inode.
    if (Number.isSafeInteger(inode) && inode > 0) found.set(key, inode);
    needles.delete(needle);
  }
}

/** The two address columns as the kernel prints them for a family, or undefined when the family cannot hold them. */
function rowText(key: string, hexDigits: number): string | undefined {
  const [local = "", localPort = "", remote = "", remotePort = ""] = key.split(" ");
  const one = endText(local, localPort, hexDigits);
  const other = endText(remote, remotePort, hexDigits);
  return one === undefined || other === undefined ? undefined : `${one} ${other}`;
}

function endText(text: string, port: string, hexDigits: number): string | undefined {
  const address = parseAddress(text);
  if (address === undefined || (address.version === 6 && hexDigits === 8)) return undefined;
  const bytes = Buffer.alloc(hexDigits / 2);
  if (address.version === 4 && bytes.length === 16) bytes.set([0xff, 0xff], 10);
  bytes.set(address.bytes, bytes.length - address.bytes.length);
  if (endianness() === "LE") bytes.swap32();
  const hex = bytes.toString("hex").toUpperCase();
  return `${hex}:${Number(port).toString(16).toUpperCase().padStart(4, "0")}`;
}
