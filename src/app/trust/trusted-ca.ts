/** `trusted_ca`: the certificates of a PEM file or of a directory of them, and the roots that they are added to. */
import { X509Certificate } from "node:crypto";
import { readdirSync, statSync } from "node:fs";
import { join } from "node:path";
import tls from "node:tls";
import { readSmallFile } from "../../files/watched-file.ts";
import { messageOf } from "../../errors.ts";
import { pemBlocks } from "./bundle.ts";

/** Files of a directory that are read; Kubernetes' own links in a mounted ConfigMap begin with two dots. */
const certificateFile = /^[^.].*\.(?:crt|pem|cer)$/i;

/** Of a file of certificates; those of a system are a quarter of a megabyte. */
export const maxBundleBytes = 16 * 1_048_576;

/** Throws an Error that says what is wrong with which file. */
export function readTrustedCa(path: string): string[] {
  const files = statSync(path).isDirectory()
    ? readdirSync(path)
        .filter((name) => certificateFile.test(name))
        .sort()
        .map((name) => join(path, name))
    : [path];
  const certificates = files.flatMap((file) => certificatesOf(file));
  if (certificates.length === 0) throw new Error("holds no PEM certificate");
  return certificates;
}

function certificatesOf(file: string): string[] {
  const blocks = pemBlocks(readSmallFile(file, maxBundleBytes));
  for (const [index, block] of blocks.entries()) {
    try {
      void new X509Certificate(block).subject;
    } catch (error) {
      throw new Error(`certificate ${index + 1} of ${file} cannot be read: ${messageOf(error)}`, {
        cause: error,
      });
    }
  }
  return blocks;
}

/** What OpenSSL trusts on this machine, else what the runtime brings along. */
export function systemRoots(): readonly string[] {
  const system = tls.getCACertificates("system");
  return system.length > 0 ? system : tls.getCACertificates("bundled");
}
