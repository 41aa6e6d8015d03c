/** The part of WebAssembly that this folder uses; the compiler has it only together with the types of browsers. */
declare namespace WebAssembly {
  type ExportValue = ((...values: number[]) => unknown) | Global | Memory | object;
  type Exports = Readonly<Record<string, ExportValue>>;

  type Module = object;
  const Module: new (bytes: Uint8Array) => Module;

  class Instance {
    constructor(
      module: Module,
      imports: Readonly<Record<string, Readonly<Record<string, unknown>>>>,
    );
    readonly exports: Exports;
  }

  class Memory {
    constructor(pages: { readonly initial: number; readonly maximum: number });
    readonly buffer: ArrayBuffer;
  }

  class Global {
    readonly value: unknown;
  }
}
