/** A policy that `opa build -t wasm` made: compiled, and known to be one that can be evaluated here. */
import { messageOf } from "../errors.ts";
import { type Bundle, buildCommand } from "./bundle.ts";
import { decisionPaths } from "./decision-engine.ts";

/** A policy that is ready to be given to an evaluator. */
export interface WasmPolicy {
  readonly module: WebAssembly.Module;
  /** The text of the JSON object that the policy sees as `data`. */
  readonly data: string;
  readonly revision: string;
  /** Documents that the policy was built to answer. */
  readonly entrypoints: readonly string[];
  readonly memory: MemoryPages;
}

/** Sizes in pages of 64 KiB. */
export interface MemoryPages {
  readonly initial: number;
  readonly maximum: number;
}

/** What the SDK implements; everything else that is not in the module itself would fail when it is called. */
const sdkBuiltins: ReadonlySet<string> = new Set([
  "json.is_valid",
  "regex.split",
  "sprintf",
  "yaml.is_valid",
  "yaml.marshal",
  "yaml.unmarshal",
]);

const pageBytes = 65_536;
/** 128 MiB: input, data and everything that an evaluation makes of them. */
const maxPages = 2_048;

/** Compiles and inspects; throws an Error that says what is wrong. */
export function compilePolicy(bundle: Bundle): WasmPolicy {
  const memory = memoryFor(bundle);
  let module: WebAssembly.Module;
  try {
    module = new WebAssembly.Module(new Uint8Array(bundle.wasm));
  } catch (error) {
    throw new Error(`policy.wasm is not WebAssembly: ${messageOf(error)}`, { cause: error });
  }
  const { builtins, entrypoints } = inspect(module, memory);
  const missing = builtins.filter((name) => !sdkBuiltins.has(name)).sort();
  if (missing.length > 0) {
    const names = missing.map((name) => `${name}()`).join(", ");
    throw new Error(
      `the policy calls ${names}, which OPA does not compile to WebAssembly and this proxy does not have: rewrite the rule, or use server_url`,
    );
  }
  if (!decisionPaths.some((path) => entrypoints.includes(path))) {
    const has = entrypoints.length === 0 ? "none" : entrypoints.slice(0, 5).join(", ");
    throw new Error(
      `policy.wasm answers none of the documents that are asked for (it has: ${has}): build it with \`${buildCommand}\``,
    );
  }
  return { module, data: bundle.data, revision: bundle.revision, entrypoints, memory };
}

/** Parsed data takes a few times its text; pages that are not touched cost nothing. */
function memoryFor({ wasm, data }: Bundle): MemoryPages {
  const initial = 32 + Math.ceil((wasm.length + 4 * data.length) / pageBytes);
  if (initial > maxPages) {
    throw new Error(`the policy and its data need more than ${maxPages * pageBytes} bytes`);
  }
  return { initial, maximum: maxPages };
}

interface Inspected {
  readonly builtins: readonly string[];
  readonly entrypoints: readonly string[];
}

/** Asks the module for its two tables (OPA's WebAssembly ABI 1.x) without evaluating anything. */
function inspect(module: WebAssembly.Module, pages: MemoryPages): Inspected {
  const memory = new WebAssembly.Memory(pages);
  const refuse = (): never => {
    throw new Error("it called out before it was asked");
  };
  const env = {
    memory,
    opa_abort: refuse,
    opa_println: refuse,
    opa_builtin0: refuse,
    opa_builtin1: refuse,
    opa_builtin2: refuse,
    opa_builtin3: refuse,
    opa_builtin4: refuse,
  };
  try {
    const { exports } = new WebAssembly.Instance(module, { env });
    const version = exports["opa_wasm_abi_version"];
    const abi = version instanceof WebAssembly.Global ? Number(version.value) : undefined;
    if (abi !== 1) throw new Error(`its ABI version is ${abi ?? "not stated"}, and 1 is known`);
    const table = (name: string): string[] => {
      const address = call(exports, "opa_json_dump", call(exports, name));
      return Object.keys(JSON.parse(cString(memory, address)) as object);
    };
    return { builtins: table("builtins"), entrypoints: table("entrypoints") };
  } catch (error) {
    throw new Error(`policy.wasm is not a policy of OPA: ${messageOf(error)}`, { cause: error });
  }
}

function call(exports: WebAssembly.Exports, name: string, ...values: number[]): number {
  const exported = exports[name];
  if (typeof exported !== "function") throw new Error(`it has no function ${name}`);
  return Number(exported(...values));
}

function cString(memory: WebAssembly.Memory, address: number): string {
  const bytes = Buffer.from(memory.buffer);
  const end = bytes.indexOf(0, address);
  return bytes.toString("utf8", address, end === -1 ? bytes.length : end);
}
