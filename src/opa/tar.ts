/**
 * Reads tar archives (POSIX.1-1988 ustar with pax and GNU long names) that are in memory.
 *
 * Bundles are small and come from a server that may be compromised or broken: every length is checked, and an archive
 * that is cut short or garbled is an error instead of half a policy.
 */

/** A regular file of an archive. */
export interface TarFile {
  /** Relative, without `./` and leading slashes. */
  readonly name: string;
  readonly bytes: Buffer;
}

const blockSize = 512;
const maxFiles = 10_000;
const file = new Set(["0", "\0", "7"]);

/** The regular files; throws an Error that says what is wrong. Links and devices are refused. */
export function readTar(archive: Buffer): TarFile[] {
  const files: TarFile[] = [];
  let at = 0;
  let longName: string | undefined;
  while (at + blockSize <= archive.length) {
    const header = archive.subarray(at, at + blockSize);
    if (header.every((byte) => byte === 0)) return files;
    checkSum(header);
    const size = octal(header, 124, 12);
    const start = at + blockSize;
    const bytes = archive.subarray(start, start + size);
    if (bytes.length < size) throw new Error("the archive is cut short");
    at = start + Math.ceil(size / blockSize) * blockSize;
    const type = String.fromCharCode(header[156] ?? 0);
    if (type === "x") {
      longName = paxPath(bytes) ?? longName;
    } else if (type === "L") {
      longName = text(bytes);
    } else if (file.has(type)) {
      files.push({ name: cleanName(longName ?? headerName(header)), bytes });
      if (files.length > maxFiles) throw new Error(`the archive has more than ${maxFiles} files`);
      longName = undefined;
    } else if (type === "5" || type === "g") {
      longName = undefined;
    } else {
      throw new Error(`the archive has an entry that is not a file (type "${type}")`);
    }
  }
  throw new Error("the archive has no end");
}

/** The sum over the header with its own field as spaces; some writers summed signed bytes. */
function checkSum(header: Buffer): void {
  const stated = octal(header, 148, 8);
  let unsigned = 0;
  let signed = 0;
  for (const [index, byte] of header.entries()) {
    const counted = index >= 148 && index < 156 ? 0x20 : byte;
    unsigned += counted;
    signed += (counted << 24) >> 24;
  }
  if (stated !== unsigned && stated !== signed) {
    throw new Error("it is not a tar archive, or a damaged one");
  }
}

function octal(header: Buffer, start: number, length: number): number {
  const digits = text(header.subarray(start, start + length)).trim();
  if (!/^[0-7]{1,11}$/.test(digits)) throw new Error("the archive has a header with a bad number");
  return Number.parseInt(digits, 8);
}

function text(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString("utf8", 0, end === -1 ? bytes.length : end);
}

function headerName(header: Buffer): string {
  const name = text(header.subarray(0, 100));
  const isUstar = header.toString("latin1", 257, 262) === "ustar";
  const prefix = isUstar ? text(header.subarray(345, 500)) : "";
  return prefix === "" ? name : `${prefix}/${name}`;
}

/** The `path` record of a pax header: "LENGTH path=VALUE\n". */
function paxPath(bytes: Buffer): string | undefined {
  let at = 0;
  let path: string | undefined;
  while (at < bytes.length) {
    const space = bytes.indexOf(0x20, at);
    const length = Number(bytes.toString("latin1", at, space));
    if (space === -1 || !Number.isSafeInteger(length) || length < 5) {
      throw new Error("the archive has a bad pax header");
    }
    const record = bytes.toString("utf8", space + 1, at + length - 1);
    if (record.startsWith("path=")) path = record.slice("path=".length);
    at += length;
  }
  return path;
}

function cleanName(name: string): string {
  const parts = name.split("/").filter((part) => part !== "" && part !== ".");
  if (parts.includes("..") || parts.length === 0) {
    throw new Error("the archive has a file name that leaves it");
  }
  return parts.join("/");
}
