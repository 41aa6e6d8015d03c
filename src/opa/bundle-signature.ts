/** Signatures of bundles in OPA's format: a JWS in `.signatures.json` that has a digest for every file. */
import { createHash } from "node:crypto";
import { parse as parseYaml } from "yaml";
import { messageOf } from "../errors.ts";
import { isObject, objectsOf, textOf } from "../http/json-access.ts";
import { type JwsAlgorithm, parseJws, verifyJws } from "./jws.ts";

/** A key that bundles may be signed with. */
export interface VerificationKey {
  readonly algorithm: JwsAlgorithm;
  /** What the signature's scope has to be, where {@link BundleVerification.scope} is not set. */
  readonly scope: string | undefined;
  /** The public key in PEM, or the shared secret; throws an Error where it cannot be had. */
  text(): string;
}

/** How bundles are verified. A bundle without a signature is then none. */
export interface BundleVerification {
  readonly keys: ReadonlyMap<string, VerificationKey>;
  /** The only key that counts; else the signature names one of them. */
  readonly keyId: string | undefined;
  readonly scope: string | undefined;
  /** Whether a file needs no digest. */
  isExcluded(name: string): boolean;
}

type Files = ReadonlyMap<string, Buffer>;

/** Where the signature stands. */
export const signaturesFile = ".signatures.json";
const ownSigner = "_default";
/** MD5 and SHA-1, which OPA also knows, prove nothing any more. */
const hashes: ReadonlyMap<unknown, string> = new Map([
  ["SHA-224", "sha224"],
  ["SHA-256", "sha256"],
  ["SHA-384", "sha384"],
  ["SHA-512", "sha512"],
  ["SHA-512-224", "sha512-224"],
  ["SHA-512-256", "sha512-256"],
]);

interface Digest {
  readonly hash: unknown;
  readonly algorithm: unknown;
}

/** Throws an Error that says why the bundle is not the one that somebody with a key signed. */
export function verifyBundle(files: Files, verification: BundleVerification): void {
  const bytes = files.get(signaturesFile);
  if (bytes === undefined) {
    throw new Error(
      "the bundle is not signed, and verification asks for a signature (`opa build --signing-key`, `opa sign`)",
    );
  }
  const digests = signedDigests(bytes, verification);
  for (const [name, content] of files) {
    if (name === signaturesFile) continue;
    const digest = digests.get(name);
    digests.delete(name);
    if (!verification.isExcluded(name)) checkDigest(name, content, digest);
  }
  const [missing] = digests.keys();
  if (missing !== undefined) {
    throw new Error(`the bundle's signature names ${shown(missing)}, which is not in the bundle`);
  }
}

function signedDigests(bytes: Buffer, verification: BundleVerification): Map<string, Digest> {
  const config = parsed(() => JSON.parse(bytes.toString("utf8")));
  const plugin = isObject(config) ? (config["plugin"] ?? ownSigner) : undefined;
  if (!isObject(config) || (plugin !== ownSigner && plugin !== "")) {
    throw new Error(`${signaturesFile} is not in the format of OPA's own signatures`);
  }
  const { signatures } = config;
  const [token, ...others] = Array.isArray(signatures) ? (signatures as unknown[]) : [];
  if (typeof token !== "string" || others.length > 0) {
    throw new Error(`${signaturesFile} has not exactly one signature`);
  }
  try {
    return verifiedDigests(token, verification);
  } catch (error) {
    throw new Error(`the bundle's signature is not accepted: ${messageOf(error)}`, {
      cause: error,
    });
  }
}

function verifiedDigests(token: string, verification: BundleVerification): Map<string, Digest> {
  const jws = parseJws(token);
  const payload = parsed(() => JSON.parse(jws.payload.toString("utf8")));
  if (!isObject(payload)) throw new Error("its payload is no JSON object");
  const id = verification.keyId ?? textOf(jws.header["kid"]) ?? textOf(payload["keyid"]);
  if (id === undefined) throw new Error("it names no key (verification.keyid)");
  const key = verification.keys.get(id);
  if (key === undefined) throw new Error(`verification.keys has no key ${shown(id)}`);
  verifyJws(jws, { algorithm: key.algorithm, text: key.text() });
  const scope = verification.scope ?? key.scope ?? "";
  if ((payload["scope"] ?? "") !== scope) {
    throw new Error(`its scope is ${shown(payload["scope"] ?? "")}, and not ${shown(scope)}`);
  }
  const digests = new Map<string, Digest>();
  for (const { name, hash, algorithm } of objectsOf(payload["files"])) {
    if (typeof name !== "string") throw new Error("it has a file without a name");
    digests.set(name.replace(/^\/+/, ""), { hash, algorithm });
  }
  return digests;
}

function checkDigest(name: string, content: Buffer, digest: Digest | undefined): void {
  if (digest === undefined) throw new Error(`${shown(name)} is not in the bundle's signature`);
  const hash = hashes.get(digest.algorithm);
  if (hash === undefined) {
    throw new Error(
      `the bundle's signature has a digest of ${shown(name)} in ${shown(digest.algorithm)}, which is not accepted`,
    );
  }
  const found = createHash(hash).update(hashedForm(name, content)).digest("hex");
  if (typeof digest.hash !== "string" || digest.hash.toLowerCase() !== found) {
    throw new Error(`${shown(name)} is not the file that was signed`);
  }
}

/** Data and manifests are signed by what they say, and everything else by its bytes. */
function hashedForm(name: string, content: Buffer): Buffer | string {
  const base = name.slice(name.lastIndexOf("/") + 1);
  const text = content.toString("utf8");
  if (base === "data.json" || base === ".manifest") return canonical(keepingNumbers(name, text));
  if (base === "data.yaml") {
    return canonical(parsed(() => parseYaml(text, { maxAliasCount: 100 })));
  }
  return content;
}

/** A number as it is spelled: signers hash it as it stands. */
class Spelled {
  readonly text: string;

  constructor(text: string) {
    this.text = text;
  }
}

function keepingNumbers(name: string, text: string): unknown {
  const reviver = (
    _key: string,
    value: unknown,
    context?: { readonly source?: string },
  ): unknown => (typeof value === "number" ? new Spelled(context?.source ?? String(value)) : value);
  try {
    return (JSON.parse as (text: string, reviver: unknown) => unknown)(text, reviver);
  } catch (error) {
    throw new Error(`${name} cannot be read: ${messageOf(error)}`, { cause: error });
  }
}

/** The value as signers spell it: keys in the order of their bytes, no white space, and the escapes of Go. */
function canonical(value: unknown): string {
  if (value instanceof Spelled) return value.text;
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (isObject(value)) {
    const members = Object.keys(value)
      .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
      .map((key) => `${quoted(key)}:${canonical(value[key])}`);
    return `{${members.join(",")}}`;
  }
  return typeof value === "string" ? quoted(value) : JSON.stringify(value ?? null);
}

function quoted(text: string): string {
  return JSON.stringify(text.toWellFormed())
    .replaceAll("\u2028", String.raw`\u2028`)
    .replaceAll("\u2029", String.raw`\u2029`);
}

function parsed(read: () => unknown): unknown {
  try {
    return read();
  } catch {
    return undefined;
  }
}

function shown(value: unknown): string {
  return JSON.stringify(value)?.slice(0, 128) ?? "nothing";
}
