/** Every open tunnel of the process: counted, drained at shutdown, judged again after a reload. */
import { RequestContext, type RequestFacts } from "../pipeline/context.ts";
import type { Pipeline, Verdict } from "../pipeline/pipeline.ts";

/** Why a tunnel was closed from our side. */
export type CutReason = "revoked" | "draining";

/** What the registry keeps of an open tunnel. */
export interface OpenTunnel {
  /** The facts that the chain judged, so that a new chain can judge them again. */
  readonly facts: RequestFacts;
  /** Its requests are judged one by one. */
  readonly isBridged?: boolean;
  cut(reason: CutReason): void;
}

/** The set of open tunnels. */
export class TunnelRegistry {
  readonly #open = new Set<OpenTunnel>();
  #places = 0;

  get size(): number {
    return this.#open.size;
  }

  /** Takes a place, from before the dial to the end: tunnels that are being opened count against the limit too. */
  take(limit: number): boolean {
    if (this.#places >= limit) return false;
    this.#places += 1;
    return true;
  }

  /** Gives the place back. */
  leave(): void {
    this.#places -= 1;
  }

  add(tunnel: OpenTunnel): void {
    this.#open.add(tunnel);
  }

  delete(tunnel: OpenTunnel): void {
    this.#open.delete(tunnel);
  }

  /**
   * Asks a new generation's chain about every open tunnel and cuts those that it refuses.
   *
   * Resolves with the number of tunnels cut. A tunnel whose check fails is cut: a failure of a check is a refusal.
   */
  async recheck(pipeline: Pipeline, skips: (host: string) => boolean): Promise<number> {
    let cut = 0;
    for (const tunnel of this.#open) {
      if (skips(tunnel.facts.flow.destination.host)) continue;
      const { flow, stage, method, path, host, headers, hasBody, cancellation } = tunnel.facts;
      const context = new RequestContext({
        flow,
        stage,
        method,
        path,
        host,
        headers: headers.clone(),
        hasBody,
        cancellation,
      });
      const verdict = await judge(pipeline, context, tunnel.isBridged === true);
      const isSeen = tunnel.isBridged === true || context.tunnelTerms.mustInspect === undefined;
      if (verdict !== undefined && "permit" in verdict && isSeen) continue;
      cut += 1;
      tunnel.cut("revoked");
    }
    return cut;
  }

  /** Cuts all of them. */
  cutAll(): void {
    for (const tunnel of this.#open) tunnel.cut("draining");
  }
}

/** Undefined where the check itself fails. */
async function judge(
  pipeline: Pipeline,
  context: RequestContext,
  deferDefault: boolean,
): Promise<Verdict | undefined> {
  try {
    return await pipeline.runRequest(context, { deferDefault });
  } catch {
    // The caller counts it as a refusal.
    return undefined;
  }
}
