/** An X.509-SVID and bundles from files, where there is no Workload API. */
import { createPrivateKey, X509Certificate } from "node:crypto";
import { messageOf } from "../errors.ts";
import { fileProblem, FileWatch, Looks, readSmallFile } from "../files/watched-file.ts";
import { HeldX509 } from "./held-x509.ts";
import type { X509Source, X509Svid } from "./x509-source.ts";
import { leadsTo, readBundle, readSvid } from "./x509-svid.ts";

/** The files, all of them in PEM. */
export interface SvidFiles {
  /** The SVID, then its intermediates. */
  readonly cert: string;
  readonly key: string;
  /** The authorities of its own trust domain. */
  readonly bundle: string;
  /** Those of other trust domains, by name. */
  readonly federated: ReadonlyMap<string, string>;
}

/** Where the files are, and who hears of them. */
export interface FileSourceOptions {
  readonly files: SvidFiles;
  readonly clock: { now(): number };
  /** Quiet time after a change: the files of one SVID are rarely written in one step. */
  readonly debounceMs: number;
  onRenewed(item: "x509_svid" | "x509_bundle", facts: Readonly<Record<string, unknown>>): void;
  /** Hears of each new problem once; what was good last stays in use. */
  onProblem(problem: string): void;
}

/** Reads the files with the first question, and again when they change. */
export class FileX509Source implements X509Source {
  readonly #options: FileSourceOptions;
  readonly #held = new HeldX509();
  readonly #watched = new Map<string, FileWatch>();
  readonly #looks: Looks;
  #problem: string | undefined;
  #isClosed = false;

  constructor(options: FileSourceOptions) {
    this.#options = options;
    this.#looks = new Looks(() => options.clock.now());
  }

  current(): X509Svid | undefined {
    this.begin();
    const { svid } = this.#held;
    return svid !== undefined && this.#options.clock.now() < svid.expiresAt ? svid : undefined;
  }

  bundle(trustDomain: string): readonly string[] | undefined {
    this.begin();
    return this.#held.bundles.get(trustDomain);
  }

  trustDomains(): readonly string[] {
    this.begin();
    return [...this.#held.bundles.keys()];
  }

  notReady(): string | undefined {
    if (this.current() !== undefined) return undefined;
    const { svid } = this.#held;
    if (svid === undefined) return this.#problem ?? "the files have not been read yet";
    const at = new Date(svid.expiresAt).toISOString();
    return `the X.509-SVID of ${this.#options.files.cert} has expired at ${at}`;
  }

  onChange(listener: () => void): () => void {
    this.begin();
    return this.#held.onChange(listener);
  }

  get expiresAt(): number | undefined {
    return this.#held.svid?.expiresAt;
  }

  /** Reads and watches the files, as far as that is not done. */
  begin(): void {
    if (this.#isClosed || this.#watched.size === this.#paths.length || !this.#looks.isDue()) return;
    // Watched before they are read: a change in between is seen.
    this.#watch();
    this.#read();
  }

  close(): void {
    this.#isClosed = true;
    for (const watch of this.#watched.values()) watch.close();
    this.#held.close();
  }

  get #paths(): readonly string[] {
    const { cert, key, bundle, federated } = this.#options.files;
    return [...new Set([cert, key, bundle, ...federated.values()])];
  }

  #watch(): void {
    for (const path of this.#paths) {
      if (this.#watched.has(path)) continue;
      const gone = (error: Error): void => {
        this.#watched.get(path)?.close();
        this.#watched.delete(path);
        this.#failed(`${path} is no longer watched: ${error.message}`);
      };
      try {
        const watch = new FileWatch(path, this.#options.debounceMs, () => this.#read(), gone);
        this.#watched.set(path, watch);
      } catch {
        // Its directory is not there yet; reading says so, and the next question tries again.
      }
    }
  }

  #read(): void {
    if (this.#isClosed) return;
    try {
      this.#take();
      this.#problem = undefined;
    } catch (error) {
      this.#failed(messageOf(error));
    }
  }

  /** Uses the files whole, or throws an Error and leaves everything as it was. */
  #take(): void {
    const { files, clock } = this.#options;
    const svid = readSvid(
      { certificates: certificatesOf(files.cert), privateKey: keyOf(files.key) },
      clock.now(),
    );
    if (typeof svid === "string") throw new Error(`${files.cert}: ${svid}`);
    const own = bundleOf(files.bundle);
    const bundles = new Map([[svid.trustDomain, own]]);
    for (const [domain, path] of files.federated) {
      if (domain !== svid.trustDomain) bundles.set(domain, bundleOf(path));
    }
    const isTrusted = leadsTo(svid, own);
    // An authority that was taken out must not stay trusted; nobody would take what it has signed.
    this.#held.replace(isTrusted ? svid : undefined, bundles, ({ isOtherSvid, domains }) => {
      const { spiffeId, expiresAt } = svid;
      const expires = new Date(expiresAt).toISOString();
      if (isOtherSvid && isTrusted) this.#options.onRenewed("x509_svid", { spiffeId, expires });
      for (const trustDomain of domains) {
        const authorities = bundles.get(trustDomain)?.length ?? 0;
        this.#options.onRenewed("x509_bundle", { trustDomain, authorities });
      }
    });
    if (isTrusted) return;
    throw new Error(
      `${files.bundle}: no authority in it has signed the X.509-SVID of ${files.cert}`,
    );
  }

  #failed(problem: string): void {
    if (problem !== this.#problem) this.#options.onProblem(problem);
    this.#problem = problem;
  }
}

const certificatePattern = /-----BEGIN CERTIFICATE-----[^-]*-----END CERTIFICATE-----/g;

/** The certificates of a file in DER, one behind the other. */
function certificatesOf(path: string): Buffer {
  const found = textOf(path).match(certificatePattern) ?? [];
  if (found.length === 0) throw new Error(`${path}: it has no certificate in PEM`);
  try {
    return Buffer.concat(found.map((pem) => new X509Certificate(pem).raw));
  } catch (error) {
    throw new Error(`${path}: it has a certificate that cannot be read`, { cause: error });
  }
}

function bundleOf(path: string): readonly string[] {
  const bundle = readBundle(certificatesOf(path));
  if (typeof bundle === "string") throw new Error(`${path}: ${bundle}`);
  return bundle;
}

function keyOf(path: string): Buffer {
  const text = textOf(path);
  try {
    return createPrivateKey(text).export({ type: "pkcs8", format: "der" });
  } catch {
    // What the parser says could quote the key.
    throw new Error(`${path}: it is not an unencrypted private key in PEM`);
  }
}

function textOf(path: string): string {
  try {
    return readSmallFile(path);
  } catch (error) {
    throw new Error(fileProblem(path, error), { cause: error });
  }
}
