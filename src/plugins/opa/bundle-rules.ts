/** What a configuration says of bundles: who may have signed them, and who compiles those of source. */
import { accessSync, constants, statSync } from "node:fs";
import { readSmallFile } from "../../files/watched-file.ts";
import { messageOf } from "../../errors.ts";
import type { BundleVerification, VerificationKey } from "../../opa/bundle-signature.ts";
import { RegoCompiler } from "../../opa/compiler.ts";
import { publicKey } from "../../opa/jws.ts";
import type { BundleRules } from "../../opa/policy-source.ts";
import { compilePathGlob } from "../../pattern/path-pattern.ts";
import { PluginConfigError } from "../../pipeline/plugin.ts";
import type { OpaConfig } from "./config.ts";

type Verification = NonNullable<OpaConfig["verification"]>;
type KeyConfig = Verification["keys"][string];

const maxKeyBytes = 65_536;

/** Throws a PluginConfigError for a key or a program that cannot be used. */
export function bundleRules({ compiler, verification }: OpaConfig): BundleRules {
  return {
    compiler: compiler === undefined ? undefined : compilerAt(compiler),
    verification: verification === undefined ? undefined : verificationOf(verification),
  };
}

function compilerAt(program: string): RegoCompiler {
  try {
    accessSync(program, constants.X_OK);
    if (!statSync(program).isFile()) throw new Error("it is no file");
  } catch (error) {
    const message = `${program} cannot be run: ${messageOf(error)}`;
    throw new PluginConfigError([{ path: ["compiler"], message }]);
  }
  return new RegoCompiler({ program });
}

function verificationOf(verification: Verification): BundleVerification {
  const { keys, keyid: keyId, scope, exclude_files: excluded } = verification;
  const globs = excluded.map((pattern) => compilePathGlob(pattern));
  return {
    keys: new Map(Object.entries(keys).map(([id, key]) => [id, keyOf(id, key)])),
    keyId,
    scope,
    isExcluded: (name) => globs.some((glob) => glob.matches(name)),
  };
}

function keyOf(id: string, { algorithm, key, key_file: file, scope }: KeyConfig): VerificationKey {
  if (key !== undefined && !algorithm.startsWith("HS")) {
    try {
      publicKey(key, algorithm);
    } catch (error) {
      const path = ["verification", "keys", id, "key"];
      throw new PluginConfigError([{ path, message: messageOf(error) }]);
    }
  }
  return { algorithm, scope, text: () => key ?? keyText(id, file ?? "") };
}

/** Read whenever a bundle is verified, so that a key may be replaced. */
function keyText(id: string, path: string): string {
  let text: string;
  try {
    text = readSmallFile(path, maxKeyBytes).trim();
  } catch (error) {
    throw new Error(`the file of key ${JSON.stringify(id)} cannot be read: ${messageOf(error)}`, {
      cause: error,
    });
  }
  if (text === "") throw new Error(`the file of key ${JSON.stringify(id)} is empty`);
  return text;
}
