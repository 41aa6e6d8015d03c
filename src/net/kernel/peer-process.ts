/**
 * Who made a connection: from its addresses to the process that holds its other end (Linux, by /proc).
 *
 * The answer is typed: `resolved`, `unresolved` where the system cannot tell, and `violation` where it can tell that
 * the caller must not be believed. Only `unresolved` may be judged as an unknown caller.
 */
import { networkInterfaces } from "node:os";
import { messageOf } from "../../errors.ts";
import { classifyAddress, parseAddress } from "../address.ts";
import { ExecutableTrust } from "./executable-trust.ts";
import { JoinedReading } from "./joined-reading.ts";
import { PolicyLinks } from "./policy-links.ts";
import { ProcessTable, type SocketHolder } from "./process-table.ts";
import type { ProcessFacts } from "./process-tree.ts";
import { ProcSocketTable, type SocketOwnerLookup, type SocketTuple } from "./socket-table.ts";

/** What is known of a caller, in every outcome as far as it got. */
interface Known {
  /** Empty when not even that is known. */
  readonly executable: string;
  /** 0 when not even that is known. */
  readonly pid: number;
  /** Executables of the ancestors, nearest first. */
  readonly ancestors: readonly string[];
}

/** A caller that is known. */
export interface ResolvedPeer extends Known {
  readonly kind: "resolved";
  readonly sha256: string;
  /** Absolute paths among the arguments of the process and of its ancestors; for the record only. */
  readonly commandLine: readonly string[];
  /** Those of the asked paths that are symbolic links to the executable or to an ancestor's. */
  readonly aliases: readonly string[];
}

/** What is read of a process; `startedAt` says of which one. */
type Description = Omit<ResolvedPeer, "kind"> & Pick<ProcessFacts, "startedAt">;

/** Why a caller is not known. */
export type UnresolvedReason =
  | "unsupported-platform"
  | "remote-peer"
  | "no-socket"
  | "no-owner"
  | "unreadable-executable"
  | "process-changed"
  | "own-namespace"
  | "timeout"
  | "overloaded"
  | "fault";

/** A caller that the system cannot tell. */
export interface UnresolvedPeer extends Known {
  readonly kind: "unresolved";
  readonly reason: UnresolvedReason;
  readonly message: string;
}

/** A caller that must be refused: its executable changed, or several different processes share its socket. */
export interface PeerViolation extends Known {
  readonly kind: "violation";
  readonly reason: "integrity" | "ambiguous-owners";
  readonly message: string;
}

/** What a look-up says. */
export type PeerProcess = ResolvedPeer | UnresolvedPeer | PeerViolation;

/** How callers are looked up. */
export interface PeerProcessOptions {
  /** The agent's entry process: its network namespace is looked in, and its tree first. */
  readonly agentPid?: number;
  /** The entry process only holds the agent's namespaces and is no ancestor: what it runs is the agent. */
  readonly isHolder?: boolean;
  /** A faster way to the inode than reading tables. */
  readonly sockets?: SocketOwnerLookup;
  readonly timeoutMs?: number;
  /** `/proc`, or a copy of its shape for tests. */
  readonly procRoot?: string;
  readonly platform?: NodeJS.Platform;
}

const defaultTimeoutMs = 3000;
const maxAncestors = 64;
const maxConcurrent = 256;
const maxArgumentPaths = 64;
const noLinks: readonly string[] = [];

/** A failure on the way, turned into an answer at the end. */
class Stop extends Error {
  readonly outcome: UnresolvedPeer | PeerViolation;

  constructor(outcome: UnresolvedPeer | PeerViolation) {
    super(outcome.message);
    this.outcome = outcome;
  }
}

/** Looks callers up; one per process, as it remembers what executables were. */
export class PeerProcesses {
  readonly #options: PeerProcessOptions;
  readonly #root: string;
  /** Whose namespaces callers are looked for in. */
  readonly #anchor: number | "self";
  readonly #sockets: SocketOwnerLookup;
  readonly #processes: ProcessTable;
  readonly #trust = new ExecutableTrust();
  readonly #links: PolicyLinks;
  /** Processes that are being described, by the paths that were asked for: connections made at once share the work. */
  readonly #described = new WeakMap<readonly string[], JoinedReading<number, Description>>();
  readonly #remembered = new WeakMap<object, Promise<PeerProcess>>();
  #running = 0;

  constructor(options: PeerProcessOptions = {}) {
    this.#options = options;
    this.#root = options.procRoot ?? "/proc";
    this.#anchor = options.agentPid ?? "self";
    this.#sockets = options.sockets ?? new ProcSocketTable(`${this.#root}/${this.#anchor}`);
    this.#processes = new ProcessTable({ root: this.#root, agentPid: options.agentPid });
    this.#links = new PolicyLinks(this.#root);
  }

  /**
   * The caller behind an accepted connection; asked once per `connection`, the answer stays for its life.
   *
   * `links` are paths of the policy that may be symbolic links as the caller sees its files. Never rejects.
   */
  identify(
    connection: object,
    tuple: SocketTuple,
    links: readonly string[] = noLinks,
  ): Promise<PeerProcess> {
    const known = this.#remembered.get(connection);
    if (known !== undefined) return known;
    const outcome = this.resolve(tuple, links);
    this.#remembered.set(connection, outcome);
    return outcome;
  }

  /** Lets go of the kernel; nobody is asked for after this. */
  close(): void {
    this.#sockets.close?.();
  }

  /** The same without remembering. */
  async resolve(tuple: SocketTuple, links: readonly string[] = noLinks): Promise<PeerProcess> {
    if ((this.#options.platform ?? process.platform) !== "linux") {
      return unresolved("unsupported-platform", "callers can be identified on Linux only");
    }
    if (this.#options.agentPid === undefined && !isLocal(tuple.client.address)) {
      return unresolved("remote-peer", "the connection comes from another machine or pod");
    }
    if (this.#running >= maxConcurrent) {
      return unresolved("overloaded", "too many callers are being looked up");
    }
    this.#running += 1;
    const timeoutMs = this.#options.timeoutMs ?? defaultTimeoutMs;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<PeerProcess>((resolve) => {
      const message = `the caller was not identified in ${timeoutMs} ms`;
      timer = setTimeout(() => resolve(unresolved("timeout", message)), timeoutMs);
    });
    const looking = this.#look(tuple, links)
      .catch((error: unknown) =>
        // One of its own for each connection: what is counted and logged is counted and logged for each.
        error instanceof Stop ? { ...error.outcome } : unresolved("fault", messageOf(error)),
      )
      .finally(() => {
        this.#running -= 1;
        clearTimeout(timer);
      });
    return Promise.race([looking, late]);
  }

  async #look(tuple: SocketTuple, links: readonly string[]): Promise<PeerProcess> {
    // The kernel lists sockets while they come and go, and can skip one: a second reading settles it.
    const inode = (await this.#sockets.inodeOf(tuple)) ?? (await this.#sockets.inodeOf(tuple));
    if (inode === undefined) {
      throw stop("no-socket", "no established socket of this machine has these two addresses");
    }
    const holders = await this.#processes.holdersOf(inode);
    const [first] = holders;
    if (first === undefined) throw stop("no-owner", "no process that can be seen holds the socket");
    const peer = await this.#describe(first, inode, links);
    for (const other of holders.slice(1)) {
      if (!isSameIdentity(peer, await this.#describe(other, inode, links))) {
        throw new Stop({
          ...known(peer),
          kind: "violation",
          reason: "ambiguous-owners",
          message: `ambiguous shared socket ownership: ${holders.length} different processes hold it`,
        });
      }
    }
    return peer;
  }

  /** What the holder of a socket is: all of it is read after the socket was found with it, and it still has the socket. */
  async #describe(
    holder: SocketHolder,
    inode: number,
    links: readonly string[],
  ): Promise<ResolvedPeer> {
    const { pid } = holder;
    let described = this.#described.get(links);
    if (described === undefined) {
      described = new JoinedReading((asked) => this.#read(asked, links));
      this.#described.set(links, described);
    }
    const { startedAt, ...peer } = await described.ask(pid);
    // Between the search and here the process may have run another program, or ended and lent its pid.
    const isSame =
      this.#processes.factsOf(pid)?.startedAt === startedAt &&
      this.#processes.stillHolds(holder, inode) &&
      (await this.#processes.executableOf(pid)) === peer.executable;
    if (!isSame)
      throw stop("process-changed", "the process changed while it was looked at", known(peer));
    this.#refuseOwnNamespace(peer);
    return { kind: "resolved", ...peer };
  }

  async #read(pid: number, links: readonly string[]): Promise<Description> {
    const process = this.#processes.factsOf(pid);
    const executable = await this.#processes.executableOf(pid);
    if (process === undefined || executable === undefined) {
      throw stop("unreadable-executable", "the executable cannot be read", { pid });
    }
    const lineage = await this.#lineage(pid, process.parent);
    const ancestors = lineage.map((one) => one.executable);
    const facts = { executable, pid, ancestors };
    // Before its file is believed to be what lies at that path, and once more at the end.
    this.#refuseOwnNamespace(facts);
    const sha256 = await this.#trusted(facts, executable, pid);
    for (const one of lineage) await this.#trusted(facts, one.executable, one.pid);
    const commandLine = await this.#argumentPaths([pid, ...lineage.map((one) => one.pid)], facts);
    const aliases = await this.#links.leadingTo(new Set([executable, ...ancestors]), pid, links);
    return { ...facts, startedAt: process.startedAt, sha256, commandLine, aliases };
  }

  /** Whoever makes a user namespace may mount anything over /usr/bin/curl in it, and cannot come back out of it. */
  #refuseOwnNamespace(facts: Known): void {
    const own = this.#processes.userNamespaceOf(facts.pid);
    if (own !== this.#processes.userNamespaceOf(this.#anchor))
      throw stop("own-namespace", "the process has a user namespace of its own", facts);
  }

  /** The ancestors up to and with the agent's entry process; init is nobody's ancestor. */
  async #lineage(
    pid: number,
    parent: number,
  ): Promise<readonly { readonly pid: number; readonly executable: string }[]> {
    const { agentPid, isHolder = false } = this.#options;
    const lineage: { readonly pid: number; readonly executable: string }[] = [];
    let next = pid === agentPid ? 0 : parent;
    for (let level = 0; level < maxAncestors && next > 0; level += 1) {
      if ((next === 1 && agentPid !== 1) || (isHolder && next === agentPid)) break;
      const executable = await this.#processes.executableOf(next);
      if (executable !== undefined) lineage.push({ pid: next, executable });
      if (next === agentPid) break;
      next = this.#processes.factsOf(next)?.parent ?? 0;
    }
    return lineage;
  }

  async #trusted(facts: Known, executable: string, pid: number): Promise<string> {
    const trust = await this.#trust.check(executable, `${this.#root}/${pid}/exe`);
    if (trust.kind === "trusted") return trust.sha256;
    if (trust.kind === "changed") {
      throw new Stop({
        ...facts,
        kind: "violation",
        reason: "integrity",
        message: `Binary integrity violation: ${executable} hash changed since it was first seen`,
      });
    }
    throw stop("unreadable-executable", `${executable} cannot be hashed: ${trust.reason}`, facts);
  }

  async #argumentPaths(pids: readonly number[], facts: Known): Promise<readonly string[]> {
    const paths = new Set<string>();
    for (const pid of pids) {
      for (const path of await this.#processes.argumentPathsOf(pid)) paths.add(path);
    }
    for (const path of [facts.executable, ...facts.ancestors]) paths.delete(path);
    return [...paths].slice(0, maxArgumentPaths);
  }
}

function isSameIdentity(one: ResolvedPeer, other: ResolvedPeer): boolean {
  const facts = ({ executable, sha256, ancestors, commandLine }: ResolvedPeer): string =>
    JSON.stringify([executable, sha256, ancestors, commandLine]);
  return facts(one) === facts(other);
}

function known({ executable, pid, ancestors }: Known): Known {
  return { executable, pid, ancestors };
}

function unresolved(
  reason: UnresolvedReason,
  message: string,
  facts: Partial<Known> = {},
): UnresolvedPeer {
  return { executable: "", pid: 0, ancestors: [], ...facts, kind: "unresolved", reason, message };
}

function stop(reason: UnresolvedReason, message: string, facts: Partial<Known> = {}): Stop {
  return new Stop(unresolved(reason, message, facts));
}

/** True for an address of this network namespace; a caller from elsewhere has no socket here. */
function isLocal(text: string): boolean {
  const address = parseAddress(text)?.unmapped();
  if (address === undefined) return false;
  if (classifyAddress(address) === "loopback") return true;
  const plain = address.toString();
  return Object.values(networkInterfaces()).some((addresses) =>
    addresses?.some((own) => parseAddress(own.address)?.unmapped().toString() === plain),
  );
}
