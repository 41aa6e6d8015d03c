/**
 * The kernel's own answer to "which socket is this": one netlink SOCK_DIAG question per connection (sock_diag(7)).
 *
 * A question takes a few microseconds whatever the number of sockets, where a reading of /proc/net/tcp grows with it.
 * The answer covers the network namespace of this process.
 */
import { endianness } from "node:os";
import { messageOf } from "../../errors.ts";
import { type IpAddress, parseAddress } from "../address.ts";
import { type Libc, loadLibc, type NativeFunction } from "./libc.ts";
import type { SocketOwnerLookup, SocketTuple } from "./socket-table.ts";

/** A connection to the kernel, or a sentence that says why there is none. */
export type SocketDiagResult = (SocketOwnerLookup & { close(): void }) | string;

// include/linux/socket.h, include/uapi/linux/netlink.h, sock_diag.h, inet_diag.h
const addressFamilyNetlink = 16;
const socketRawCloseOnExec = 0o2000003;
const netlinkSockDiag = 4;
const sockDiagByFamily = 20;
const messageError = 2;
const requestFlag = 1;
const protocolTcp = 6;
const dontWait = 0x40;
const notFound = 2; // ENOENT
const established = 1; // TCP_ESTABLISHED
const headerBytes = 16;
const requestBytes = headerBytes + 56;
const answerBytes = headerBytes + 72;

/** Asks the kernel about exact address pairs. */
export class SocketDiag implements SocketOwnerLookup {
  readonly #libc: Libc;
  readonly #send: NativeFunction;
  readonly #receive: NativeFunction;
  /** Undefined once closed: its number may be somebody else's by then. */
  #socket: number | undefined;
  readonly #answer = Buffer.alloc(4096);
  #sequence = 0;

  /** Opens the one netlink socket; never rejects. */
  static async open(): Promise<SocketDiagResult> {
    const libc = await loadLibc();
    if (typeof libc === "string") return libc;
    if (endianness() !== "LE") return "netlink is spoken on little-endian machines only";
    const socket = Number(
      libc.bind("int socket(int, int, int)")(
        addressFamilyNetlink,
        socketRawCloseOnExec,
        netlinkSockDiag,
      ),
    );
    if (socket < 0) return `netlink cannot be opened (errno ${libc.errno()})`;
    const diag = new SocketDiag(libc, socket);
    // A sandbox may have netlink without SOCK_DIAG: a question without an answer tells.
    const nobody = { address: "127.0.0.1", port: 1 };
    try {
      await diag.inodeOf({ client: nobody, proxy: nobody });
      return diag;
    } catch (error) {
      diag.close();
      return messageOf(error);
    }
  }

  private constructor(libc: Libc, socket: number) {
    this.#libc = libc;
    this.#socket = socket;
    this.#send = libc.bind("intptr_t send(int, const void *, size_t, int)");
    this.#receive = libc.bind("intptr_t recv(int, void *, size_t, int)");
  }

  /** Rejects when the kernel cannot be asked; undefined when it has no such established socket that a process holds. */
  inodeOf(tuple: SocketTuple): Promise<number | undefined> {
    try {
      return Promise.resolve(this.#ask(tuple));
    } catch (error) {
      return Promise.reject(error instanceof Error ? error : new Error(String(error)));
    }
  }

  close(): void {
    const socket = this.#socket;
    this.#socket = undefined;
    if (socket !== undefined) this.#libc.bind("int close(int)")(socket);
  }

  #ask({ client, proxy }: SocketTuple): number | undefined {
    const local = parseAddress(client.address)?.unmapped();
    const remote = parseAddress(proxy.address)?.unmapped();
    if (local === undefined || remote === undefined || local.version !== remote.version)
      return undefined;
    if (this.#socket === undefined) throw new Error("netlink is closed");
    this.#sequence = (this.#sequence + 1) >>> 0;
    const question = questionOf(
      { address: local, port: client.port },
      { address: remote, port: proxy.port },
      this.#sequence,
    );
    if (Number(this.#send(this.#socket, question, question.length, 0)) !== question.length) {
      throw new Error(`the kernel takes no question about sockets (errno ${this.#libc.errno()})`);
    }
    return this.#read();
  }

  /** The kernel answers while the question is sent, so that the answer is there. */
  #read(): number | undefined {
    const answer = this.#answer;
    for (;;) {
      const length = Number(this.#receive(this.#socket, answer, answer.length, dontWait));
      if (length < headerBytes + 4) {
        throw new Error(`the kernel has no answer about sockets (errno ${this.#libc.errno()})`);
      }
      // An answer to an earlier question that was given up.
      if (answer.readUInt32LE(8) !== this.#sequence) continue;
      if (answer.readUInt16LE(4) === messageError) {
        const code = -answer.readInt32LE(headerBytes);
        if (code === notFound) return undefined;
        throw new Error(`the kernel refuses questions about sockets (error ${code})`);
      }
      if (length < answerBytes) throw new Error("the kernel's answer about a socket is cut short");
      const inode = answer.readUInt32LE(headerBytes + 68);
      const isHeld = answer[headerBytes + 1] === established && inode > 0;
      return isHeld ? inode : undefined;
    }
  }
}

interface End {
  readonly address: IpAddress;
  readonly port: number;
}

/** nlmsghdr and inet_diag_req_v2: the socket whose own end is `local`. */
function questionOf(local: End, remote: End, sequence: number): Buffer {
  const question = Buffer.alloc(requestBytes);
  question.writeUInt32LE(requestBytes, 0);
  question.writeUInt16LE(sockDiagByFamily, 4);
  question.writeUInt16LE(requestFlag, 6);
  question.writeUInt32LE(sequence, 8);
  question.writeUInt8(local.address.version === 4 ? 2 : 10, headerBytes);
  question.writeUInt8(protocolTcp, headerBytes + 1);
  question.writeUInt32LE(1 << established, headerBytes + 4);
  const id = headerBytes + 8;
  question.writeUInt16BE(local.port, id);
  question.writeUInt16BE(remote.port, id + 2);
  question.set(local.address.bytes, id + 4);
  question.set(remote.address.bytes, id + 20);
  // INET_DIAG_NOCOOKIE
  question.fill(0xff, id + 40, id + 48);
  return question;
}
