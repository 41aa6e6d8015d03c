/**
 * Secure contexts with a leaf per name: minted on demand, cached within bounds, renewed by the wall clock.
 */
import { createHash, randomBytes } from "node:crypto";
import type { SecureContext, SecureVersion } from "node:tls";
import { createSecureContext } from "node:tls";
import { BoundedMap } from "../bounded-map.ts";
import { ProxyError } from "../errors.ts";
import { serverProfile } from "../net/tls-profile.ts";
import type { AuthoritySource } from "./authority-source.ts";
import type { CertificateAuthority } from "./certificate-authority.ts";
import { keyToPem, leafValidity } from "./certificate-authority.ts";
import type { KeyPair, KeyType, LeafTemplate } from "./x509.ts";
import { makeKeyPair } from "./x509.ts";

/** Options of {@link LeafMinter.create}. */
export interface LeafMinterOptions {
  /** How many contexts are kept; each takes about 32 KiB. */
  readonly maxEntries?: number;
  /** How long a leaf is valid. */
  readonly lifetimeMs?: number;
  readonly keyType?: KeyType;
  readonly minVersion?: SecureVersion;
  /** 48 bytes: whoever has the same takes the same tickets. */
  readonly ticketKeys?: Buffer;
  /** The wall clock. A monotonic one would stand still while a laptop sleeps, and leaves would outlive their dates. */
  readonly now?: () => number;
}

interface Entry {
  readonly context: SecureContext;
  /** See {@link contextWeightBytes}. */
  readonly weight: Buffer;
  readonly fingerprint: string;
  readonly notBeforeMs: number;
  /** From when on a new leaf is minted instead. */
  readonly renewAtMs: number;
}

interface Waiter {
  readonly promise: Promise<SecureContext>;
  readonly resolve: (context: SecureContext) => void;
  readonly reject: (error: unknown) => void;
}

const hourMs = 3_600_000;
/** Names that wait to be minted. At 0.4 ms each this is four seconds, longer than a client should wait. */
const maxWaiting = 10_000;
/** How long minting may hold the event loop before everybody else gets a turn. */
const sliceMs = 5;
/**
 * A context holds about 32 KiB outside the JavaScript heap that the garbage collector does not see, so thousands of
 * evicted ones pile up (800 MB after 30,000 names). A buffer of this size that is never touched makes them count: the
 * same run stays under 250 MB.
 */
const contextWeightBytes = 65_536;
/** Tickets expire before clients discard them; their keys are kept until the process ends. */
const sessionTimeoutSeconds = 3_600;

/** Mints leaves for names that the policy let through. One leaf key and one set of ticket keys per minter. */
export class LeafMinter {
  readonly #source: AuthoritySource;
  readonly #key: KeyPair;
  readonly #keyPem: string;
  readonly #lifetimeMs: number;
  readonly #minVersion: SecureVersion;
  readonly #now: () => number;
  readonly #ticketKeys: Buffer;
  /** In order of last use, oldest first. */
  readonly #entries: BoundedMap<string, Entry>;
  readonly #waiting = new Map<string, Waiter>();
  #template: { readonly fingerprint: string; readonly leaf: LeafTemplate } | undefined;
  #minted = 0;

  private constructor(source: AuthoritySource, key: KeyPair, options: LeafMinterOptions) {
    this.#source = source;
    this.#key = key;
    this.#keyPem = keyToPem(key.privateKey);
    this.#entries = new BoundedMap(options.maxEntries ?? 1024);
    this.#lifetimeMs = options.lifetimeMs ?? 24 * hourMs;
    this.#minVersion = options.minVersion ?? "TLSv1.2";
    this.#ticketKeys = options.ticketKeys ?? randomBytes(48);
    this.#now = options.now ?? Date.now;
  }

  static async create(
    source: AuthoritySource,
    options: LeafMinterOptions = {},
  ): Promise<LeafMinter> {
    return new LeafMinter(source, await makeKeyPair(options.keyType ?? "ecdsa-p256"), options);
  }

  /** How many contexts are cached. */
  get size(): number {
    return this.#entries.size;
  }

  /** How many leaves were minted since the start. */
  get minted(): number {
    return this.#minted;
  }

  /**
   * The context for a canonical host name or address that the policy judged, never for bytes from a handshake.
   * Rejects with `proxy.overloaded` when too many names wait, and with `config.invalid` when the authority has expired.
   */
  async contextFor(name: string): Promise<SecureContext> {
    const cached = this.#cached(name);
    if (cached !== undefined) return cached;
    const waiting = this.#waiting.get(name);
    if (waiting !== undefined) return waiting.promise;
    if (this.#waiting.size >= maxWaiting) {
      throw new ProxyError("proxy.overloaded", "too many new TLS names at once");
    }
    const waiter: Waiter = Promise.withResolvers<SecureContext>();
    this.#waiting.set(name, waiter);
    if (this.#waiting.size === 1) setImmediate(() => this.#mintSlice());
    return waiter.promise;
  }

  #cached(name: string): SecureContext | undefined {
    const entry = this.#entries.get(name);
    if (entry === undefined) return undefined;
    const nowMs = this.#now();
    this.#entries.delete(name);
    const isCurrent =
      entry.fingerprint === this.#source.current.fingerprint &&
      nowMs < entry.renewAtMs &&
      // The clock was set back: to the client this leaf is from the future.
      nowMs >= entry.notBeforeMs;
    if (!isCurrent) return undefined;
    this.#entries.set(name, entry);
    return entry.context;
  }

  /** A burst of new names is minted a few milliseconds at a time, so that other connections are served in between. */
  #mintSlice(): void {
    const until = performance.now() + sliceMs;
    for (const [name, waiter] of this.#waiting) {
      this.#waiting.delete(name);
      try {
        waiter.resolve(this.#mint(name));
      } catch (error) {
        waiter.reject(error);
      }
      if (performance.now() >= until) break;
    }
    if (this.#waiting.size > 0) setImmediate(() => this.#mintSlice());
  }

  #mint(name: string): SecureContext {
    const authority = this.#source.current;
    const nowMs = this.#now();
    const validity = leafValidity(authority, nowMs, this.#lifetimeMs);
    const notAfterMs = validity.notAfter.getTime();
    if (notAfterMs <= nowMs) {
      const expired = authority.notAfter.toISOString();
      throw new ProxyError("config.invalid", `tls_bridge: the CA expired on ${expired}`);
    }
    const certificate = this.#templateOf(authority).issue([name], validity);
    const context = createSecureContext({
      ...serverProfile,
      cert: certificate + authority.chainPem,
      key: this.#keyPem,
      minVersion: this.#minVersion,
      ticketKeys: this.#ticketKeys,
      // A ticket is good for the name and the authority that it was issued under, for nothing else.
      sessionIdContext: createHash("sha256")
        .update(`${authority.fingerprint} ${name}`)
        .digest("hex")
        .slice(0, 32),
      sessionTimeout: sessionTimeoutSeconds,
    });
    this.#minted += 1;
    this.#entries.renew(name, {
      context,
      weight: Buffer.allocUnsafeSlow(contextWeightBytes),
      fingerprint: authority.fingerprint,
      notBeforeMs: validity.notBefore.getTime(),
      renewAtMs: notAfterMs - Math.min(hourMs, (notAfterMs - nowMs) / 4),
    });
    return context;
  }

  #templateOf(authority: CertificateAuthority): LeafTemplate {
    if (this.#template?.fingerprint !== authority.fingerprint) {
      const leaf = authority.issuer.leafTemplate(this.#key.publicKey);
      this.#template = { fingerprint: authority.fingerprint, leaf };
    }
    return this.#template.leaf;
  }
}
