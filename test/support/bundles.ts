/** Bundles as OPA signs them, made by the format's own description. */
import { constants, createHash, createHmac, type KeyObject, sign } from "node:crypto";
import { gunzipSync, gzipSync } from "node:zlib";
import { readTar } from "../../src/opa/tar.ts";
import { fixture } from "./opa-cases.ts";
import { tarOf } from "./tar.ts";

/** Content by name. */
export type Files = Readonly<Record<string, string | Buffer>>;

/** How a bundle is signed. */
export interface Signing {
  readonly alg: string;
  /** A private key, or the secret. */
  readonly key: KeyObject | string;
  readonly kid?: string | undefined;
  readonly scope?: string;
  /** What a file is hashed as, where its content is not spelled as it is signed. */
  readonly hashedAs?: Readonly<Record<string, string>>;
  readonly hash?: readonly [name: string, digest: string];
  /** Members of the payload that take the place of ours. */
  readonly payload?: object;
}

/** The compiled policy that allows every request. */
export function allowingModule(): Buffer {
  const module = readTar(gunzipSync(fixture("allow").bytes)).find(
    ({ name }) => name === "policy.wasm",
  );
  if (module === undefined) throw new Error("the fixture has no policy.wasm");
  return module.bytes;
}

/** The content of `.signatures.json` for these files. */
export function signatureOf(files: Files, signing: Signing): string {
  const [algorithm, digest] = signing.hash ?? ["SHA-256", "sha256"];
  const digests = Object.entries(files).map(([name, content]) => ({
    name,
    hash: createHash(digest)
      .update(signing.hashedAs?.[name] ?? content)
      .digest("hex"),
    algorithm,
  }));
  const { alg, kid = "k", scope } = signing;
  const payload = { files: digests, ...(scope === undefined ? {} : { scope }), ...signing.payload };
  const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const signed = `${part({ alg, kid, typ: "JWT" })}.${part(payload)}`;
  return JSON.stringify({ signatures: [`${signed}.${signatureBytes(signed, signing)}`] });
}

function signatureBytes(signed: string, { alg, key }: Signing): string {
  const digest = /\d/.test(alg) ? `sha${alg.slice(2)}` : "sha256";
  if (typeof key === "string") return createHmac(digest, key).update(signed).digest("base64url");
  const options = alg.startsWith("ES")
    ? { key, dsaEncoding: "ieee-p1363" as const }
    : alg.startsWith("PS")
      ? {
          key,
          padding: constants.RSA_PKCS1_PSS_PADDING,
          saltLength: constants.RSA_PSS_SALTLEN_DIGEST,
        }
      : { key };
  return sign(digest, Buffer.from(signed), options).toString("base64url");
}

/** An archive of the files, signed where somebody signs it. */
export function bundleOf(files: Files, signing?: Signing): Buffer {
  const all = {
    ...files,
    ...(signing === undefined ? {} : { ".signatures.json": signatureOf(files, signing) }),
  };
  const entries = Object.entries(all).map(([name, content]) => ({ name: `/${name}`, content }));
  return gzipSync(tarOf(entries));
}
