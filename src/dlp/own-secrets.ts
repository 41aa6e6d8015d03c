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
  holder: WeakRef<Secret>;
}

/** The fingerprints of all secrets of this thread. */
export class OwnSecrets {
  readonly values = new Fingerprints<OwnSecret>(8);
  /** In the folded case of host names, without their dots. */
  readonly names = new Fingerprints<OwnSecret>(8);
  readonly #secrets = new Map<string, OwnSecret>();
  readonly #limit: number;
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

  add(secret: Secret): void {
    const text = secret.reveal().trim();
    const parts = partsOf(text);
    if (parts.length === 0) {
      this.#short += 1;
      return;
    }
    const whole = Buffer.from(text);
    const digest = keyedDigest(whole);
    const known = this.#secrets.get(digest);
    if (known !== undefined) {
      known.holder = new WeakRef(secret);
      return;
    }
    if (this.#secrets.size >= this.#limit) this.#makeRoom();
    const own: OwnSecret = { hash: shortHash(whole), digest, holder: new WeakRef(secret) };
    this.#secrets.set(digest, own);
    for (const part of parts) {
      for (const spelling of spellingsOf(part)) this.values.add(spelling, own);
      for (const spelling of nameSpellingsOf(part)) this.names.add(spelling, own);
    }
  }

  #makeRoom(): void {
    const gone = new Set<string>();
    for (const [digest, { holder }] of this.#secrets)
      if (holder.deref() === undefined) gone.add(digest);
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
