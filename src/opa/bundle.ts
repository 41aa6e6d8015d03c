/** An OPA bundle: the files of an archive or a folder, read into the compiled policy and its data. */
import { gunzipSync } from "node:zlib";
import { parse as parseYaml } from "yaml";
import { messageOf } from "../errors.ts";
import { decisionPaths } from "./decision-engine.ts";
import { readTar } from "./tar.ts";

/** Largest archive that is fetched or read, and largest content of one. */
export const maxArchiveBytes = 16 * 1024 * 1024;
/** Largest sum of the files of a bundle. */
export const maxContentBytes = 64 * 1024 * 1024;

/** What a bundle holds. */
export interface Bundle {
  /** The policy, compiled by `opa build -t wasm`. */
  readonly wasm: Buffer;
  /** The text of one JSON object: every data file of the bundle in its place. */
  readonly data: string;
  /** `revision` of the manifest; empty when it states none. */
  readonly revision: string;
}

/** The files of a bundle by their relative names. */
export type BundleFiles = ReadonlyMap<string, Buffer>;

type JsonObject = Record<string, unknown>;

/** The command that compiles a policy for this proxy. */
export const buildCommand = `opa build -t wasm ${decisionPaths.map((path) => `-e ${path}`).join(" ")} -o bundle.tar.gz POLICY_DIR`;

/** The files of a tar.gz bundle; throws an Error that says what is wrong. */
export function unpackBundle(archive: Buffer): BundleFiles {
  let content: Buffer;
  try {
    content = gunzipSync(archive, { maxOutputLength: maxContentBytes });
  } catch (error) {
    const isLarge = (error as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE";
    throw new Error(
      isLarge
        ? `the bundle unpacks to more than ${maxContentBytes} bytes`
        : "the bundle is not a gzip archive",
      { cause: error },
    );
  }
  return new Map(readTar(content).map(({ name, bytes }) => [name, bytes]));
}

/** Reads the bundle; throws an Error that says what is wrong and what to do about it. */
export function readBundle(files: BundleFiles): Bundle {
  const wasm = files.get(moduleName(readManifest(files.get(".manifest"))));
  if (wasm === undefined) throw new Error(sourceProblem(files).message);
  return { wasm, data: JSON.stringify(readData(files)), revision: manifestRevision(files) };
}

/** Whether the policy is compiled. */
export function hasModule(files: BundleFiles): boolean {
  return files.has(moduleName(readManifest(files.get(".manifest"))));
}

/** `revision` of the manifest; empty when it states none. */
export function manifestRevision(files: BundleFiles): string {
  const { revision } = readManifest(files.get(".manifest"));
  return typeof revision === "string" ? revision : "";
}

function readManifest(bytes: Buffer | undefined): JsonObject {
  if (bytes === undefined) return {};
  const value = parsed(".manifest", () => JSON.parse(bytes.toString("utf8")));
  if (!isObject(value)) throw new Error(".manifest is not a JSON object");
  return value;
}

function moduleName({ wasm }: JsonObject): string {
  const modules = new Set<string>();
  for (const resolver of Array.isArray(wasm) ? (wasm as unknown[]) : []) {
    const name = isObject(resolver) ? resolver["module"] : undefined;
    if (typeof name === "string") modules.add(name.replace(/^\/+/, ""));
  }
  if (modules.size > 1) {
    throw new Error(
      `the bundle has ${modules.size} WebAssembly modules: build all entrypoints into one, with one \`opa build\``,
    );
  }
  return [...modules][0] ?? "policy.wasm";
}

/** What is wrong with a bundle without a module; one that has Rego can be compiled. */
export function sourceProblem(files: BundleFiles): {
  readonly kind: "source" | "empty";
  readonly message: string;
} {
  const rego = [...files.keys()].filter((name) => name.endsWith(".rego"));
  if (rego.length === 0) return { kind: "empty", message: "the bundle has no policy.wasm" };
  const message = `the bundle carries only Rego source (${rego[0]}${rego.length > 1 ? ", …" : ""}) and no policy.wasm: set compiler to an opa program, or build it with \`${buildCommand}\`, leaving out the -e of each document that the policy does not define`;
  return { kind: "source", message };
}

/** `a/b/data.json` is the document `data.a.b`. */
function readData(files: BundleFiles): JsonObject {
  const root: JsonObject = {};
  for (const name of [...files.keys()].sort()) {
    const match = /^(?:(.*)\/)?data\.(json|ya?ml)$/.exec(name);
    const bytes = files.get(name);
    if (match === null || bytes === undefined) continue;
    const [, folder = "", kind] = match;
    const value = parsed(name, () => {
      const text = bytes.toString("utf8");
      return kind === "json" ? JSON.parse(text) : parseYaml(text, { maxAliasCount: 100 });
    });
    const nested = folder
      .split("/")
      .filter((part) => part !== "")
      .reduceRight<unknown>((inner, part) => ownProperty(part, inner), value);
    if (!isObject(nested)) throw new Error(`${name} does not hold an object`);
    mergeInto(root, nested, name);
  }
  return root;
}

function parsed(name: string, parse: () => unknown): unknown {
  try {
    return parse();
  } catch (error) {
    throw new Error(`${name} cannot be read: ${messageOf(error).split("\n", 1)[0]}`, {
      cause: error,
    });
  }
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** `__proto__` is a name like any other in data. */
function ownProperty(name: string, value: unknown): JsonObject {
  return Object.fromEntries([[name, value]]);
}

function mergeInto(target: JsonObject, source: JsonObject, name: string): void {
  for (const [key, value] of Object.entries(source)) {
    const existing = Object.hasOwn(target, key) ? target[key] : undefined;
    if (existing === undefined) {
      Object.defineProperty(target, key, {
        value,
        enumerable: true,
        writable: true,
        configurable: true,
      });
    } else if (isObject(existing) && isObject(value)) mergeInto(existing, value, name);
    else throw new Error(`${name} sets data that another file of the bundle sets (${key})`);
  }
}
