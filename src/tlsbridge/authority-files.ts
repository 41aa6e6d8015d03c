/**
 * The authority's three files in `ca_dir`, in the layout of a Kubernetes TLS Secret: read, or generated as a whole.
 */
import { createHash } from "node:crypto";
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { readSmallFile } from "../files/watched-file.ts";
import { messageOf } from "../errors.ts";
import {
  CertificateAuthority,
  generateAuthority,
  generatedCommonName,
  invalid,
} from "./certificate-authority.ts";

const fileNames = { certificate: "tls.crt", key: "tls.key", ca: "ca.crt" } as const;

/** A PEM chain is a few kilobytes; a file beyond this is not one. */
const maxFileBytes = 1_048_576;

const lockName = ".authbridge-ca.lock";
const lockPollMs = 50;
/** Generating takes milliseconds; an older lock was left by a process that died. */
const lockStaleMs = 10_000;

/** The contents of `ca_dir` at one moment. */
export interface AuthorityFiles {
  readonly directory: string;
  readonly certificatePem: string | undefined;
  readonly keyPem: string | undefined;
  readonly caPem: string | undefined;
  /** Changes when a byte of any file changes. */
  readonly digest: string;
}

/** Reads the three files; one that is not there is undefined, one that cannot be read is `config.invalid`. */
export async function readAuthorityFiles(directory: string): Promise<AuthorityFiles> {
  const [certificatePem, keyPem, caPem] = await Promise.all([
    readOptional(join(directory, fileNames.certificate)),
    readOptional(join(directory, fileNames.key)),
    readOptional(join(directory, fileNames.ca)),
  ]);
  const digest = createHash("sha256")
    .update(JSON.stringify([certificatePem, keyPem, caPem]))
    .digest("hex");
  return { directory, certificatePem, keyPem, caPem, digest };
}

/** Checks what was read and makes an authority of it. */
export async function authorityFromFiles(
  files: AuthorityFiles,
  nowMs: number,
): Promise<CertificateAuthority> {
  const { certificatePem, keyPem, caPem, directory } = files;
  if (certificatePem === undefined || keyPem === undefined || caPem === undefined) {
    const missing = missingFiles(files).join(", ");
    throw invalid(directory, `lacks ${missing}; put the files there or set generate_ca: true`);
  }
  const names = {
    certificate: join(directory, fileNames.certificate),
    key: join(directory, fileNames.key),
    ca: join(directory, fileNames.ca),
  };
  return CertificateAuthority.fromPem({ certificatePem, keyPem, caPem, names }, nowMs);
}

/**
 * Makes sure that `directory` holds a whole set, generating one when a file is missing, and says whether it did.
 *
 * A whole set is never overwritten, valid or not: clients may trust it already.
 */
export async function ensureAuthorityFiles(directory: string, nowMs: number): Promise<boolean> {
  try {
    await mkdir(directory, { recursive: true });
    if (missingFiles(await readAuthorityFiles(directory)).length === 0) return false;
    return await withLock(directory, async () => {
      const files = await readAuthorityFiles(directory);
      const missing = missingFiles(files);
      if (missing.length === 0) return false;
      await writeSet(directory, missing, nowMs);
      return true;
    });
  } catch (error) {
    if (error instanceof Error && error.name === "ProxyError") throw error;
    throw invalid(directory, `cannot be given a generated CA: ${messageOf(error)}`, error);
  }
}

/** Refuses a generated key that every user of the machine can read. */
export async function checkGeneratedKeyMode(
  directory: string,
  authority: CertificateAuthority,
): Promise<void> {
  // A Secret mounted by Kubernetes is readable in its pod by design; only our own set has a mode that we chose. The
  // group's bits are left alone: fsGroup sets them on volumes.
  if (authority.subject !== `CN=${generatedCommonName}`) return;
  const path = join(directory, fileNames.key);
  const { mode } = await stat(path);
  if ((mode & 0o007) !== 0) throw invalid(path, "can be read by every user; run chmod 600 on it");
}

function missingFiles(files: AuthorityFiles): readonly string[] {
  const missing: string[] = [];
  if (files.certificatePem === undefined) missing.push(fileNames.certificate);
  if (files.keyPem === undefined) missing.push(fileNames.key);
  if (files.caPem === undefined) missing.push(fileNames.ca);
  return missing;
}

async function readOptional(path: string): Promise<string | undefined> {
  try {
    return readSmallFile(path, maxFileBytes);
  } catch (error) {
    if (isErrno(error, "ENOENT")) return undefined;
    const why = isErrno(error) ? error.code : messageOf(error);
    throw invalid(path, `cannot be read: ${why}`, error);
  }
}

/**
 * Writes the set under temporary names and renames each file into place. Files that were missing come last, so that a
 * crash at any point leaves a set that is still partial and is generated anew at the next start.
 */
async function writeSet(
  directory: string,
  missing: readonly string[],
  nowMs: number,
): Promise<void> {
  const pem = await generateAuthority(nowMs);
  const set = [
    { name: fileNames.key, text: pem.keyPem, mode: 0o600 },
    { name: fileNames.certificate, text: pem.certificatePem, mode: 0o644 },
    { name: fileNames.ca, text: pem.caPem, mode: 0o644 },
  ].sort((one, other) => Number(missing.includes(one.name)) - Number(missing.includes(other.name)));
  const temporary = (name: string): string => join(directory, `.${name}.${process.pid}.tmp`);
  try {
    for (const { name, text, mode } of set) await writeSynced(temporary(name), text, mode);
    for (const { name } of set) await rename(temporary(name), join(directory, name));
  } finally {
    await Promise.all(set.map(({ name }) => rm(temporary(name), { force: true })));
  }
}

async function writeSynced(path: string, text: string, mode: number): Promise<void> {
  await rm(path, { force: true });
  // "wx": a name that somebody else put there, a symbolic link too, is not written through.
  const file = await open(path, "wx", mode);
  try {
    // open() subtracts the umask; chmod does not.
    await file.chmod(mode);
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Two processes that start on one empty directory must not mix their sets. */
async function withLock<T>(directory: string, work: () => Promise<T>): Promise<T> {
  const path = join(directory, lockName);
  for (;;) {
    try {
      const lock = await open(path, "wx", 0o600);
      await lock.close();
      break;
    } catch (error) {
      if (!isErrno(error, "EEXIST")) throw error;
      await removeStaleLock(path);
      await delay(lockPollMs);
    }
  }
  try {
    return await work();
  } finally {
    await rm(path, { force: true });
  }
}

async function removeStaleLock(path: string): Promise<void> {
  try {
    const { mtimeMs } = await stat(path);
    if (Date.now() - mtimeMs > lockStaleMs) await rm(path, { force: true });
  } catch (error) {
    // Removed in the meantime: the next attempt takes it.
    if (!isErrno(error, "ENOENT")) throw error;
  }
}

function isErrno(error: unknown, code?: string): error is NodeJS.ErrnoException {
  if (!(error instanceof Error) || !("code" in error) || typeof error.code !== "string")
    return false;
  return code === undefined ? error.name !== "ProxyError" : error.code === code;
}
