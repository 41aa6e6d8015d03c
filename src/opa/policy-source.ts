/** From the files of a bundle to a policy that can be evaluated: verified, and compiled where it is source. */
import {
  type BundleFiles,
  hasModule,
  manifestRevision,
  readBundle,
  sourceProblem,
  unpackBundle,
} from "./bundle.ts";
import { type BundleVerification, signaturesFile, verifyBundle } from "./bundle-signature.ts";
import type { RegoCompiler } from "./compiler.ts";
import { compilePolicy, type WasmPolicy } from "./wasm-policy.ts";

/** What the file says of bundles, wherever they come from. */
export interface BundleRules {
  readonly verification: BundleVerification | undefined;
  readonly compiler: RegoCompiler | undefined;
}

/** Throws, or rejects with, an Error that says what is wrong; a promise only where a program has to be run. */
export function preparePolicy(
  files: BundleFiles,
  { verification, compiler }: BundleRules,
  signal: AbortSignal,
): WasmPolicy | Promise<WasmPolicy> {
  if (verification !== undefined) verifyBundle(files, verification);
  else if (files.has(signaturesFile)) {
    throw new Error("the bundle is signed, and nothing says by whom: set verification");
  }
  if (files.has("patch.json")) throw new Error("it is a delta bundle: serve snapshot bundles");
  if (hasModule(files)) return compilePolicy(readBundle(files));
  const problem = sourceProblem(files);
  if (problem.kind === "empty" || compiler === undefined) throw new Error(problem.message);
  return compiler
    .compile(files, manifestRevision(files), signal)
    .then((archive) => compilePolicy(readBundle(unpackBundle(archive))));
}
