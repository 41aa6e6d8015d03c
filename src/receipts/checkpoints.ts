/** Signs what the decision log holds: every so many decisions, after a time, and at the end of every file. */
import type { Link } from "../session/audit-record.ts";
import type { LineFile } from "../session/line-file.ts";
import { type Checkpoint, checkpointLine, readCheckpoint, signedNote } from "./checkpoint.ts";
import { type CompactTree, leafHash } from "./merkle.ts";
import type { CheckingKey, PublicJwk, SigningKey } from "./signing-key.ts";

/** What {@link Checkpoints} are made of. */
export interface CheckpointOptions {
  /** The log as it was found. */
  readonly tree: CompactTree;
  readonly last: Link;
  readonly origin: string;
  /** Decisions after which there is one. */
  readonly every: number;
  /** The longest time for which a written decision waits for one. */
  readonly intervalMs: number;
  /** The file of checkpoints. */
  readonly file: Pick<LineFile, "write" | "close">;
  /** The key as of now. */
  key(): SigningKey;
  /** Settles when every line that was written is on the disk. */
  sync(): Promise<void>;
  onProblem(error: unknown): void;
}

const closeDeadlineMs = 2_000;
/** Public keys that are shown beside the one that signs. */
const maxFormerKeys = 8;

/** The checkpoints of one process. Only what is on the disk is signed: a crash never makes a signature untrue. */
export class Checkpoints {
  readonly #options: CheckpointOptions;
  readonly #tree: CompactTree;
  #last: Link;
  #key: SigningKey;
  #former: CheckingKey[] = [];
  /** Signed until now, and has still to say who does from here on. */
  #handover: SigningKey | undefined;
  /** Lines that the log took and has not written yet. */
  #waiting: { readonly leaf: Buffer; readonly link: Link }[] = [];
  #newest: Checkpoint | undefined;
  #sealed = 0;
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<unknown> = Promise.resolve();
  #asked = false;

  constructor(options: CheckpointOptions) {
    this.#options = options;
    this.#tree = options.tree;
    this.#last = options.last;
    this.#key = options.key();
  }

  /** The key that signs first, and those that signed before it in this process. */
  get keys(): readonly PublicJwk[] {
    this.#turnKey();
    return [this.#key, ...this.#former].map(({ jwk }) => jwk);
  }

  /** The log took the line. */
  appended(line: string, link: Link): void {
    this.#waiting.push({ leaf: leafHash(line), link });
  }

  /** The oldest of the lines that the log took were written. */
  written(count: number): void {
    for (const { leaf, link } of this.#waiting.splice(0, count)) {
      this.#tree.add(leaf);
      this.#last = link;
    }
    if (this.#tree.size - this.#sealed >= this.#options.every) {
      if (this.#asked) return;
      this.#asked = true;
      void this.seal();
    } else {
      this.#timer ??= setTimeout(() => void this.seal(), this.#options.intervalMs).unref();
    }
  }

  /** Resolves with a checkpoint of everything that is written by now; undefined where there is nothing, or no disk for it. */
  seal(): Promise<Checkpoint | undefined> {
    const sealed = this.#running.then(() => this.#seal());
    this.#running = sealed;
    return sealed;
  }

  /** By its own deadline when the disk does not take it. */
  async close(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const deadline = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, closeDeadlineMs);
    });
    await Promise.race([this.seal(), deadline]);
    clearTimeout(timer);
    clearTimeout(this.#timer);
    await this.#options.file.close();
  }

  async #seal(): Promise<Checkpoint | undefined> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#asked = false;
    this.#turnKey();
    if (this.#tree.size === 0) return undefined;
    if (this.#tree.size === this.#sealed && this.#handover === undefined) return this.#newest;
    const tree = this.#tree.copy();
    const { sequence, hash } = this.#last;
    try {
      await this.#options.sync();
      const time = new Date().toISOString();
      const said = { origin: this.#options.origin, size: tree.size, root: tree.root() };
      const statement = { ...said, sequence, hash, time };
      if (this.#handover !== undefined) {
        this.#write(tree, signedNote({ ...statement, next: this.#key }, this.#handover));
        this.#handover = undefined;
      }
      return this.#write(tree, signedNote(statement, this.#key));
    } catch (error) {
      this.#options.onProblem(error);
      return undefined;
    }
  }

  #write(tree: CompactTree, note: string): Checkpoint {
    const line = checkpointLine(note, tree);
    if (!this.#options.file.write(line)) throw new Error("no room for the checkpoint");
    this.#sealed = tree.size;
    this.#newest = readCheckpoint(line);
    return this.#newest;
  }

  /** Takes the key as of now; the one that signed before has still to name it. */
  #turnKey(): void {
    const key = this.#options.key();
    const before = this.#key;
    if (key.kid === before.kid) return;
    this.#key = key;
    this.#former = [before, ...this.#former].slice(0, maxFormerKeys);
    this.#handover ??= before;
  }
}
