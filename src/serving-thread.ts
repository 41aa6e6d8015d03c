/** The edge of a thread that serves: the cache of compiled code, and then the thread. Started by crew/member.ts. */
import { useCompileCache } from "./cli/compile-cache.ts";
import { nameSourceLines } from "./cli/stack-trace.ts";

useCompileCache(import.meta.dirname);
if (!import.meta.url.endsWith(".ts")) nameSourceLines();
// Loaded from here on, so that the cache has it.
const { serveThread } = await import("./crew/thread.ts");
serveThread();
