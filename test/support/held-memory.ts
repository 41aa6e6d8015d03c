/** How much memory something holds once everything that can be collected is gone. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;

function used(): number {
  collect();
  const { heapUsed, arrayBuffers } = process.memoryUsage();
  return heapUsed + arrayBuffers;
}

/** Bytes that are held after the work and were not before; what the work returns is held meanwhile. */
export function heldBy(work: () => object): number {
  const before = used();
  const made = work();
  const held = used() - before;
  // The use of it is what keeps it until here.
  return made instanceof Object ? held : 0;
}
