/** The fastest way of this machine to a socket's inode: netlink where the kernel answers, else the tables of /proc. */
import { messageOf } from "../../errors.ts";
import { SocketDiag, type SocketDiagResult } from "./socket-diag.ts";
import { ProcSocketTable, type SocketOwnerLookup, type SocketTuple } from "./socket-table.ts";

/** How a {@link SocketLookup} is made. */
export interface SocketLookupOptions {
  /** Called once with the reason why netlink is not used. */
  readonly onFallback?: (reason: string) => void;
  /** Stands in for {@link SocketDiag.open} in tests. */
  readonly open?: () => Promise<SocketDiagResult>;
  /** Folder in /proc of a process in this network namespace; `/proc/self` when absent. */
  readonly folder?: string;
}

/** Opens netlink at the first question, so that a process that never asks loads nothing. */
export class SocketLookup implements SocketOwnerLookup {
  readonly #options: SocketLookupOptions;
  readonly #table: ProcSocketTable;
  #opening: Promise<SocketDiagResult> | undefined;
  #diag: { close(): void } | undefined;
  #hasFallenBack = false;

  constructor(options: SocketLookupOptions = {}) {
    this.#options = options;
    this.#table = new ProcSocketTable(options.folder ?? "/proc/self");
  }

  async inodeOf(tuple: SocketTuple): Promise<number | undefined> {
    if (this.#hasFallenBack) return this.#table.inodeOf(tuple);
    this.#opening ??= this.#options.open?.() ?? SocketDiag.open();
    const opened = await this.#opening;
    if (typeof opened === "string") return this.#fallBack(tuple, opened);
    this.#diag = opened;
    try {
      return await opened.inodeOf(tuple);
    } catch (error) {
      return this.#fallBack(tuple, messageOf(error));
    }
  }

  close(): void {
    this.#hasFallenBack = true;
    this.#diag?.close();
    this.#diag = undefined;
  }

  #fallBack(tuple: SocketTuple, reason: string): Promise<number | undefined> {
    if (!this.#hasFallenBack) {
      this.close();
      this.#options.onFallback?.(reason);
    }
    return this.#table.inodeOf(tuple);
  }
}
