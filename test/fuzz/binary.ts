/** Archives, certificates, protocol buffers and addresses as kernels and agents of others write them. */
import { unpackBundle, readBundle } from "../../src/opa/bundle.ts";
import { readTar } from "../../src/opa/tar.ts";
import { parseSockaddr } from "../../src/net/kernel/original-destination.ts";
import { parseTableEnd } from "../../src/net/kernel/socket-table.ts";
import { readElements } from "../../src/spiffe/der-reader.ts";
import { readBundle as readAuthorities } from "../../src/spiffe/x509-svid.ts";
import {
  readJwtBundles,
  readJwtResponse,
  readX509Response,
} from "../../src/spiffe/workload/messages.ts";
import { fieldOf } from "../../src/grpc/protobuf.ts";
import { gzipSync } from "node:zlib";
import { rootCertificates } from "node:tls";
import { tarOf } from "../support/tar.ts";
import { caught, type Target } from "./target.ts";

const tar: Target = {
  name: "tar-bundle",
  covers: ["/src/opa/tar.ts", "/src/opa/bundle.ts"],
  seeds: [
    tarOf([
      { name: "./policy.wasm", content: "x" },
      { name: "data.json", content: "{}" },
      { name: ".manifest", content: '{"roots":["a"]}' },
    ]),
    tarOf([
      { name: "x", content: "30 path=a/b/c/d/e/f/policy.rego\n", type: "x" },
      { name: "a", content: "package a" },
    ]),
    tarOf([
      { name: "l", content: "../long", type: "L" },
      { name: "a", content: "" },
      { name: "d/", content: "", type: "5" },
    ]),
  ],
  words: [
    "\0",
    "../",
    "ustar\0",
    "path=",
    "11 path=a\n",
    "00000000010\0",
    "/",
    ".manifest",
    "-1",
    "7".repeat(11),
  ],
  check(bytes) {
    const files = caught(() => readTar(resummed(bytes)), Error);
    const bundle = caught(
      () => readBundle(unpackBundle(gzipSync(resummed(bytes), { level: 0 }))),
      Error,
    );
    if ("refusal" in files) return { outcome: files.refusal.replaceAll(/"[^"]*"/g, "") };
    const leaves = files.value.find(
      ({ name }) => name.startsWith("/") || name.split("/").includes(".."),
    );
    return {
      outcome: `${Math.min(3, files.value.length)} ${"refusal" in bundle ? bundle.refusal.slice(0, 20) : "bundle"}`,
      problem: leaves === undefined ? undefined : `the name ${leaves.name} leaves the archive`,
    };
  },
};

/** With the sum of each header as it has to be, or nothing would get past it. */
function resummed(archive: Buffer): Buffer {
  const copy = Buffer.from(archive);
  for (let at = 0; at + 512 <= copy.length;) {
    const header = copy.subarray(at, at + 512);
    if (header.every((byte) => byte === 0)) break;
    header.write("        ", 148);
    header.write(
      `${header
        .reduce((sum, byte) => sum + byte, 0)
        .toString(8)
        .padStart(6, "0")}\0 `,
      148,
    );
    const size = Number.parseInt(header.toString("latin1", 124, 135), 8);
    at += 512 + (size > 0 ? Math.ceil(size / 512) * 512 : 0);
  }
  return copy;
}

const certificates = rootCertificates
  .slice(0, 2)
  .map((one) => Buffer.from(one.replaceAll(/-----.*-----|\n/g, ""), "base64"));
const der: Target = {
  name: "der",
  covers: ["/src/spiffe/der-reader.ts", "/src/spiffe/x509-svid.ts"],
  seeds: [...certificates, Buffer.concat(certificates), Buffer.of(0x30, 3, 2, 1, 5)],
  words: ["\x30\x82", "\x30\x80", "\x02\x01", "\x84\xff\xff\xff\xff", "\x1f\x81", "\0", "\xff"],
  check(bytes) {
    const read = caught(() => readElements(bytes), Error);
    const bundle = readAuthorities(bytes);
    const outcome = `${"refusal" in read ? read.refusal : Math.min(3, read.value.length)} ${typeof bundle === "string" ? "none" : "bundle"}`;
    if ("refusal" in read) return { outcome };
    const joined = Buffer.concat(read.value.map(({ whole }) => whole));
    return {
      outcome,
      problem: joined.equals(bytes) ? undefined : "the elements are not the bytes",
    };
  },
};

const workload: Target = {
  name: "workload-messages",
  covers: ["/src/grpc/protobuf.ts", "/src/spiffe/workload/messages.ts"],
  seeds: [
    fieldOf(
      1,
      Buffer.concat([
        fieldOf(1, "spiffe://a/b"),
        fieldOf(2, "cert"),
        fieldOf(3, "key"),
        fieldOf(4, "bundle"),
      ]),
    ),
    Buffer.concat([
      fieldOf(3, Buffer.concat([fieldOf(1, "spiffe://b"), fieldOf(2, "x")])),
      Buffer.of(8, 150, 1),
    ]),
    Buffer.concat([
      fieldOf(1, Buffer.concat([fieldOf(1, "spiffe://a"), fieldOf(2, '{"keys":[]}')])),
      Buffer.of(0x0d, 1, 2, 3, 4),
    ]),
  ],
  words: [
    "\x0a",
    "\x12",
    "\x1a",
    "\x22",
    "\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80",
    "\xff\xff\xff\xff\x0f",
    "\0",
    "\x0b",
    "spiffe://",
  ],
  check(bytes) {
    const read = [readX509Response, readJwtBundles, readJwtResponse].map((reader) => {
      // A text that is no UTF-8 is a TypeError of the decoder.
      const result = caught<unknown>(() => reader(bytes), Error, TypeError);
      return "refusal" in result ? result.refusal.replaceAll(/\d+/g, "") : "read";
    });
    return { outcome: read.join() };
  },
};

const kernel: Target = {
  name: "socket-addresses",
  covers: ["/src/net/kernel/original-destination.ts", "/src/net/kernel/socket-table.ts"],
  seeds: [
    Buffer.from([2, 0, 1, 187, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]),
    Buffer.concat([Buffer.from([10, 0, 1, 187, 0, 0, 0, 0]), Buffer.alloc(16, 1), Buffer.alloc(4)]),
    Buffer.from("0100007F:1F90"),
    Buffer.from("0000000000000000FFFF00000100007F:01BB"),
  ],
  words: ["\x02\0", "\x0a\0", ":", "0100007F", "FFFF", "\0\0\0\0", "zz"],
  check(bytes) {
    const address = parseSockaddr(bytes);
    const end = parseTableEnd(bytes.toString("latin1"));
    const ports = [address?.port ?? 0, end?.port ?? 0];
    const isPort = ports.every((port) => Number.isInteger(port) && port >= 0 && port <= 65_535);
    return {
      outcome: `${String(address !== undefined)} ${String(end !== undefined)}`,
      problem: isPort ? undefined : `ports ${ports.join()}`,
    };
  },
};

export const targets: readonly Target[] = [tar, der, workload, kernel];
