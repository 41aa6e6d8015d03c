/**
 * The roots of the system and the bridge's CA in one file.
 *
 * Most variables that name a CA file replace a client's own roots. The bridge signs only for the hosts that it opens;
 * hosts that are passed through keep their real chain, so a client needs both.
 */
import { mkdir, realpath } from "node:fs/promises";
import { dirname } from "node:path";
import tls from "node:tls";
import { writeAtomically } from "../../files/atomic-file.ts";
import { javaTrustStore } from "./java-store.ts";

/** What was written. */
export interface TrustBundle {
  readonly certificates: number;
  readonly javaStoreFile: string;
}

/** The Java store that stands beside a bundle. */
export function javaStoreOf(bundleFile: string): string {
  return `${bundleFile.replace(/\.(?:crt|pem|cer)$/, "")}.jks`;
}

/** Writes the bundle as PEM to `path`, and as a Java trust store beside it. */
export async function writeTrustBundle(path: string, caPem: string): Promise<TrustBundle> {
  const certificates = distinct([...pemBlocks(caPem), ...(await systemRoots(path))]);
  const javaStoreFile = javaStoreOf(path);
  await mkdir(dirname(path), { recursive: true });
  await writeAtomically(path, certificates.join(""), 0o644);
  await writeAtomically(javaStoreFile, javaTrustStore(certificates.map(derOf)), 0o644);
  return { certificates: certificates.length, javaStoreFile };
}

/** The certificates of a PEM text, each as a block of its own. */
export function pemBlocks(pem: string): string[] {
  const blocks = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? [];
  return blocks.map((block) => `${block}\n`);
}

/**
 * What OpenSSL would trust without us, else what the runtime brings along (images without a certificate package).
 *
 * SSL_CERT_FILE and SSL_CERT_DIR count: a company's roots stay trusted. Our own earlier bundle does not, or a CA that
 * was replaced would stay in it for ever.
 */
async function systemRoots(bundleFile: string): Promise<string[]> {
  const configured = process.env["SSL_CERT_FILE"];
  const isOurs = configured !== undefined && (await isSameFile(configured, bundleFile));
  // The runtime reads the variable within the call, which nothing else comes between.
  if (isOurs) delete process.env["SSL_CERT_FILE"];
  const system = tls.getCACertificates("system");
  if (isOurs) process.env["SSL_CERT_FILE"] = configured;
  return (system.length > 0 ? system : tls.getCACertificates("bundled")).flatMap(pemBlocks);
}

async function isSameFile(one: string, other: string): Promise<boolean> {
  try {
    const [first, second] = await Promise.all([realpath(one), realpath(other)]);
    return first === second;
  } catch {
    // One of them is not there yet.
    return false;
  }
}

/** Each certificate once. */
export function distinct(blocks: readonly string[]): string[] {
  const byBytes = new Map<string, string>();
  for (const block of blocks) {
    const key = derOf(block).toString("base64");
    if (!byBytes.has(key)) byBytes.set(key, block);
  }
  return [...byBytes.values()];
}

function derOf(pem: string): Buffer {
  return Buffer.from(pem.replace(/-----[^-]+-----/g, ""), "base64");
}
