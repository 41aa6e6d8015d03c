/** The part of the SDK that this folder uses; its own types name browser types and leave the default export out. */
declare module "@open-policy-agent/opa-wasm" {
  interface LoadedPolicy {
    /** The set of results: one per definition of the document, none when it is undefined. */
    evaluate(input: ArrayBuffer, entrypoint: string): unknown;
    setData(data: ArrayBuffer): void;
  }

  const sdk: {
    loadPolicySync(
      module: WebAssembly.Module,
      memory: { initial: number; maximum: number },
      builtins: Readonly<Record<string, never>>,
    ): LoadedPolicy;
  };
  export default sdk;
  export type { LoadedPolicy };
}
