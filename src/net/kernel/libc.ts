/** The C library of a Linux system, for the few system calls that Node does not offer (docs/adr/0012-koffi.md). */
import { messageOf } from "../../errors.ts";

/**
 * Calls one C function; arguments and result are what its prototype says.
 *
 * A call is synchronous: use it for calls that return at once (`getsockopt`, a non-blocking `recv`).
 */
export type NativeFunction = (...values: unknown[]) => unknown;

/** The loaded library. */
export interface Libc {
  /** Binds a function by its C prototype, such as `int getsockopt(int, int, int, void *, uint32_t *)`. */
  bind(prototype: string): NativeFunction;
  /** The `errno` that the last bound call left. */
  errno(): number;
}

/**
 * Loads the C library through koffi, which is an optional dependency; a sentence says why there is none.
 *
 * Never rejects: whoever needs the library says what the process cannot do without it.
 */
export async function loadLibc(): Promise<Libc | string> {
  if (process.platform !== "linux") return `not available on ${process.platform}`;
  try {
    const { default: koffi } = await import("koffi");
    // The name of glibc first, then that of musl.
    const library = firstOf(["libc.so.6", "libc.so"], (name) => koffi.load(name));
    return {
      bind: (prototype) => library.func(prototype) as NativeFunction,
      errno: () => koffi.errno(),
    };
  } catch (error) {
    return `the optional package koffi cannot be used: ${messageOf(error)}`;
  }
}

function firstOf<T>(names: readonly string[], load: (name: string) => T): T {
  let fault: unknown;
  for (const name of names) {
    try {
      return load(name);
    } catch (error) {
      fault = error;
    }
  }
  throw fault;
}
