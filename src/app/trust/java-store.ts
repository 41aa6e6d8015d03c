/**
 * Java's own key store format (JKS, version 2), which every JVM reads and which needs no keytool to write.
 *
 * Layout: magic, version, number of entries; per certificate a tag, an alias, a date, the type and the DER; then a
 * SHA-1 over the password and everything before it. The digest guards against damage, not against people.
 */
import { createHash } from "node:crypto";

/** The password that Java's own store has had since it exists; it protects nothing, the store holds no secrets. */
export const javaStorePassword = "changeit";

const magic = 0xfeedfeed;
const version = 2;
const trustedCertificateTag = 2;
/** Mixed into the digest by every implementation of the format. */
const whitener = "Mighty Aphrodite";

/** A trust store that holds these certificates. */
export function javaTrustStore(certificates: readonly Buffer[], now = Date.now()): Buffer {
  const entries = certificates.flatMap((der, index) => [
    uint32(trustedCertificateTag),
    text(`authbridge-${index}`),
    uint64(now),
    text("X.509"),
    uint32(der.length),
    der,
  ]);
  const body = Buffer.concat([
    uint32(magic),
    uint32(version),
    uint32(certificates.length),
    ...entries,
  ]);
  const digest = createHash("sha1")
    .update(Buffer.from(javaStorePassword, "utf16le").swap16())
    .update(whitener)
    .update(body)
    .digest();
  return Buffer.concat([body, digest]);
}

/** Java's modified UTF-8 with a length of two bytes; for ASCII it is UTF-8. */
function text(ascii: string): Buffer {
  const length = Buffer.alloc(2);
  length.writeUInt16BE(ascii.length);
  return Buffer.concat([length, Buffer.from(ascii, "latin1")]);
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
}
