/** What this process holds as a Secret, to be found again in what leaves. */
import { onEverySecret, type Secret } from "../secret.ts";
import { Fingerprints, keyedDigest, shortHash } from "./fingerprints.ts";
import { nameSpellingsOf, spellingsOf } from "./spellings.ts";

/** A shorter value is too often something else. */
export const leastSecretBytes = 8;
/** A longer one is looked for by its beginning. */
export const mostSecretBytes = 4_096;
/** Of one line of a key in PEM, which is looked for by its lines. */
const leastLineBytes = 24;
/** Beyond it, those go first that nobody holds any more, then the oldest. */
const maxSecrets = 16_384;

/** One secret, as findings name it. */
export interface OwnSecret {
  readonly hash: string;
  readonly digest: string;
  /** Absent for one of another thread. */
  holder: WeakRef<Secret> | undefined;
}

/** The fingerprints of all secrets of this thread. */
export class OwnSecrets {
  readonly values = new Fingerprints<OwnSecret>(8);
  /** In the folded case of host names, without their dots. */
  readonly names = new Fingerprints<OwnSecret>(8);
  readonly #secrets = new Map<string, OwnSecret>();
  readonly #limit: number;
  readonly #listeners = new Set<(text: string) => void>();
  #short = 0;
  #forgotten = 0;

  constructor(limit = maxSecrets) {
    this.#limit = limit;
  }

  /** Secrets that were too short to be looked for. */
  get short(): number {
    return this.#short;
  }

  /** Secrets that had to make room while they were held. */
  get forgotten(): number {
    return this.#forgotten;
  }

  /** What this thread holds of them. */
  *held(): Generator<string> {
    for (const { holder } of this.#secrets.values()) {
      const text = holder?.deref()?.reveal();
      if (text !== undefined) yield text;
    }
  }

  /** Calls back for each secret that this thread comes to hold and did not know; returns what ends that. */
  onNew(listener: (text: string) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  add(secret: Secret): void {
    const text = secret.reveal();
    if (this.#know(text, secret)) for (const listener of this.#listeners) listener(text);
  }

  /** One that another thread holds: it goes before those of this one where there has to be room. */
  learn(text: string): void {
    this.#know(text, undefined);
  }

  /** Whether it is new. */
  #know(said: string, secret: Secret | undefined): boolean {
    const text = said.trim();
    const parts = partsOf(text);
    if (parts.length === 0) {
      this.#short += 1;
      return false;
    }
    const holder = secret === undefined ? undefined : new WeakRef(secret);
    const whole = Buffer.from(text);
    const digest = keyedDigest(whole);
    const known = this.#secrets.get(digest);
    if (known !== undefined) {
      known.holder = holder ?? known.holder;
      return false;
    }
    if (this.#secrets.size >= this.#limit) this.#makeRoom();
    const own: OwnSecret = { hash: shortHash(whole), digest, holder };
    this.#secrets.set(digest, own);
    for (const part of parts) {
      for (const spelling of spellingsOf(part)) this.values.add(spelling, own);
      for (const spelling of nameSpellingsOf(part)) this.names.add(spelling, own);
    }
    return true;
  }

  #makeRoom(): void {
    const gone = new Set<string>();
    for (const [digest, { holder }] of this.#secrets)
      if (holder !== undefined && holder.deref() === undefined) gone.add(digest);
    for (const [digest, { holder }] of this.#secrets) {
      if (gone.size >= this.#limit / 8) break;
      if (holder === undefined) gone.add(digest);
    }
    for (const digest of this.#secrets.keys()) {
      if (gone.size >= this.#limit / 8) break;
      if (!gone.has(digest)) this.#forgotten += 1;
      gone.add(digest);
    }
    for (const digest of gone) this.#secrets.delete(digest);
    this.values.prune((own) => gone.has(own.digest));
    this.names.prune((own) => gone.has(own.digest));
  }
}

/** The value, or the lines that make up a key: the ends of PEM are in every key. */
function partsOf(text: string): readonly Buffer[] {
  const lines = text.split(/\r?\n/).map((line) => line.trim());
  const values =
    lines.length === 1
      ? [text]
      : lines.filter((line) => line.length >= leastLineBytes && !line.startsWith("-----"));
  return values
    .map((value) => Buffer.from(value).subarray(0, mostSecretBytes))
    .filter((value) => value.length >= leastSecretBytes);
}

let shared: OwnSecrets | undefined;

/** Those of this thread, from when they are first asked for. */
export function ownSecrets(): OwnSecrets {
  if (shared === undefined) {
    const made = (shared = new OwnSecrets());
    onEverySecret((secret) => made.add(secret));
  }
  return shared;
}
