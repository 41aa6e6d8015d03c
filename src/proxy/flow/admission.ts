/** The beginning that every flow shares: a lease of the current generation, the caller, and the release or the refusal. */
import type { Client } from "../../pipeline/flow.ts";
import type { Lease, Runtime } from "./runtime.ts";

/** A message that its surface could read. */
export interface Admitted {
  /** A promise where the caller has to be looked up. */
  readonly client: Client | Promise<Client>;
  /** Runs the flow; never rejects, and lasts as long as the flow needs its generation. */
  run(this: void, client: Client): Promise<unknown>;
}

/** Runs what `read` makes of a message, and releases the lease after it; `refuse` is told what `read` or the caller threw. */
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
    const start = (peer: Client): void => void run(peer).finally(() => lease.release());
    if (client instanceof Promise) client.then(start, failed);
    else start(client);
  } catch (error) {
    failed(error);
  }
}
