/** The start of every flow: lease the current generation, identify the caller, then run and release, or refuse. */
import type { Client } from "../../pipeline/flow.ts";
import type { Lease, Runtime } from "./runtime.ts";

/** A message that its surface could read. */
export interface Admitted {
  /** A promise where the caller has to be looked up. */
  readonly client: Client | Promise<Client>;
  /** Runs the flow; never throws, and calls back when the flow needs its generation no longer. */
  run(this: void, client: Client, done: () => void): void;
}

/** Runs the flow that `read` returns and releases its lease; `refuse` gets what `read` or the caller look-up threw. */
export function admit(
  lease: Lease,
  read: (runtime: Runtime) => Admitted,
  refuse: (error: unknown) => void,
): void {
  const failed = (error: unknown): void => {
    lease.release();
    refuse(error);
  };
  try {
    const { client, run } = read(lease.runtime);
    const start = (peer: Client): void => run(peer, () => lease.release());
    if (client instanceof Promise) client.then(start, failed);
    else start(client);
  } catch (error) {
    failed(error);
  }
}
