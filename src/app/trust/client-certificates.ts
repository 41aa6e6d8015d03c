/** Certificates that this program shows to origins, by host: from files that are replaced while it runs, or its SVID. */
import { existsSync } from "node:fs";
import { messageOf } from "../../errors.ts";
import { FilePair } from "../../files/file-pair.ts";
import { WatchedFile } from "../../files/watched-file.ts";
import type { ClientCertificate } from "../../http/operator-fetch.ts";
import { assertPair, readCertificateChain, readPrivateKey } from "../../oauth/pem.ts";
import { HostMatcher } from "../../pattern/host-pattern.ts";
import { Secret } from "../../secret.ts";
import type { X509Source } from "../../spiffe/x509-source.ts";

/** An entry of the file; an index of the list names it. */
export interface CertificateEntry {
  readonly hosts: readonly string[];
  readonly cert_file?: string | undefined;
  readonly key_file?: string | undefined;
  readonly svid: boolean;
}

/** What entries need besides the file. */
export interface CertificateServices {
  readonly x509: X509Source | undefined;
  readonly now: () => number;
  /** Hears of each new problem once. */
  readonly onProblem: (problem: string) => void;
}

/** A certificate of the file as it is now; another certificate is another object. */
export interface HostCertificate {
  /** The key of the file. */
  readonly key: string;
  readonly matches: (host: string) => boolean;
  current(): DatedCertificate | undefined;
  /** Why there is none that can be shown. */
  problem(): string;
}

/** A certificate and its end, in milliseconds since the epoch. */
export interface DatedCertificate extends ClientCertificate {
  readonly expiresAt: number;
}

/** The entries of the file, the first that matches a host counts. */
export class ClientCertificates {
  readonly #entries: readonly HostCertificate[];

  /** Throws an Error for a pattern that is none; see {@link certificateProblems}. */
  constructor(entries: readonly CertificateEntry[], services: CertificateServices) {
    this.#entries = entries.map((entry, index) => hostCertificate(entry, index, services));
  }

  /** The entry for a host; undefined where it is shown nothing. */
  find(host: string): HostCertificate | undefined {
    return this.#entries.find(({ matches }) => matches(host));
  }

  [Symbol.iterator](): Iterator<HostCertificate> {
    return this.#entries[Symbol.iterator]();
  }
}

function hostCertificate(
  entry: CertificateEntry,
  index: number,
  services: CertificateServices,
): HostCertificate {
  const hosts = new HostMatcher(entry.hosts);
  const source = entry.svid ? svidOf(services) : filesOf(entry, services);
  return {
    key: `tls_bridge.client_certificates[${index}]`,
    matches: (host) => hosts.matches(host),
    current: () => {
      const certificate = source.current();
      return certificate !== undefined && certificate.expiresAt > services.now()
        ? certificate
        : undefined;
    },
    problem: () =>
      source.problem() ?? (source.current() === undefined ? "there is none yet" : "it has expired"),
  };
}

interface Source {
  current(): DatedCertificate | undefined;
  problem(): string | undefined;
}

function svidOf({ x509 }: CertificateServices): Source {
  return { current: () => x509?.current(), problem: () => x509?.notReady() };
}

function filesOf(
  { cert_file: path = "", key_file: keyPath = "" }: CertificateEntry,
  { now, onProblem }: CertificateServices,
): Source {
  const clock = { now };
  const first = new WatchedFile({ path, clock, parse: readCertificateChain, onProblem });
  const second = new WatchedFile({ path: keyPath, clock, parse: readPrivateKey, onProblem });
  const pair = new FilePair({
    path,
    first,
    second,
    onProblem,
    combine: (chain, key): DatedCertificate => {
      assertPair(chain, key);
      const pem = key.export({ format: "pem", type: "pkcs8" }).toString();
      const expiresAt = chain.certificate.validToDate.getTime();
      return { certificateChain: chain.pem, privateKey: new Secret(pem), expiresAt };
    },
  });
  // Read before it is asked for: while the two files are being replaced, the ones before serve.
  pair.current();
  return {
    current: () => pair.current(),
    problem: () => first.problem ?? second.problem ?? pair.problem,
  };
}

/** What is wrong with the entries; a file that is not there may still come. `path` starts below the list. */
export function certificateProblems(
  entries: readonly CertificateEntry[],
): readonly { readonly path: readonly (string | number)[]; readonly message: string }[] {
  return entries.flatMap((entry, index) => {
    const problems: { path: (string | number)[]; message: string }[] = [];
    for (const [at, pattern] of entry.hosts.entries()) {
      try {
        void new HostMatcher([pattern]);
      } catch (error) {
        problems.push({ path: [index, "hosts", at], message: messageOf(error) });
      }
    }
    const paths = [entry.cert_file, entry.key_file].filter((path) => path !== undefined);
    if (entry.svid || !paths.every((path) => existsSync(path))) return problems;
    const source = filesOf(entry, { x509: undefined, now: Date.now, onProblem: () => undefined });
    if (source.current() === undefined)
      problems.push({ path: [index, "cert_file"], message: source.problem() ?? "cannot be used" });
    return problems;
  });
}
