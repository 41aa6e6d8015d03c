/** Every open tunnel of the process: counted, drained at shutdown, judged again after a reload. */
import { RequestContext, type RequestFacts } from "../../pipeline/context.ts";
import { Slots } from "../../net/slots.ts";
import type { Denial } from "../../pipeline/decision.ts";
import { type Kill, killDenial, type KillSwitch } from "../../pipeline/kill-switch.ts";
import type { Pipeline } from "../../pipeline/pipeline.ts";

/** Why a tunnel was closed from our side. */
export type CutReason = "revoked" | "killed" | "draining";

/** The word of metrics for a tunnel that was cut; undefined where what the splice says is better. */
export function endOf(cut: CutReason | undefined): "revoked" | "killed" | undefined {
  return cut === "draining" ? undefined : cut;
}

/** What the registry keeps of an open tunnel. */
export interface OpenTunnel {
  /** The facts that the pipeline judged, so that a new pipeline can judge them again. */
  readonly facts: RequestFacts;
  /** The rules that let it be opened. */
  readonly judgedBy: JudgedBy;
  /** Its requests are judged one by one. */
  readonly isBridged?: boolean;
  /** Each message of its client is shown to the pipeline that let it be opened. */
  readonly readsMessages?: boolean;
  /** Tells the session that it belongs to, where {@link facts} do not. */
  readonly context?: RequestContext;
  cut(reason: CutReason): void;
}

/** A tunnel that is judged, dialled, or whose client has not said yet what it speaks. */
export interface OpeningTunnel {
  readonly facts: RequestContext;
  kill(denial: Denial): void;
}

/** A pipeline, and the {@link TunnelRegistry.epoch} in which it was asked. */
export interface JudgedBy {
  readonly pipeline: Pipeline;
  readonly epoch: number;
}

/** How a generation judges tunnels that were opened before it. */
export interface TunnelRules {
  readonly inbound: Pipeline;
  readonly outbound: Pipeline;
  readonly skipHosts: { matches(host: string): boolean };
  readonly callers: { knows(caller: string | undefined): boolean } | undefined;
}

/** Places of tunnels, which several registries may have in common. */
export interface TunnelPlaces {
  take(limit: number): boolean;
  leave(): void;
}

/** The set of open tunnels. */
export class TunnelRegistry {
  readonly #open = new Slots<OpenTunnel>();
  readonly #opening = new Slots<OpeningTunnel>();
  /** Absent where this is the only registry of the process. */
  readonly #shared: TunnelPlaces | undefined;
  readonly #kills: KillSwitch | undefined;
  #places = 0;
  #epoch = 0;
  #rules: TunnelRules | undefined;

  constructor(shared?: TunnelPlaces, kills?: KillSwitch) {
    this.#shared = shared;
    this.#kills = kills;
  }

  get size(): number {
    return this.#open.size;
  }

  /** Changes with every {@link recheck}. Read it before the pipeline is asked. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Reserves a slot, from before the dial to the end: tunnels that are being opened count against the limit too. */
  take(limit: number): boolean {
    if (this.#shared !== undefined) return this.#shared.take(limit);
    if (this.#places >= limit) return false;
    this.#places += 1;
    return true;
  }

  /** Releases the slot. */
  leave(): void {
    if (this.#shared === undefined) this.#places -= 1;
    else this.#shared.leave();
  }

  /** The slot that {@link opened} is called with. */
  opening(tunnel: OpeningTunnel): number {
    return this.#opening.add(tunnel);
  }

  /** It is among the open ones, or over. */
  opened(slot: number): void {
    this.#opening.delete(slot);
  }

  /** The slot that {@link delete} is called with. */
  add(tunnel: OpenTunnel): number {
    const slot = this.#open.add(tunnel);
    // It was stopped while it was judged or dialled. Whoever adds it may have more to do before it can be cut.
    if (this.#killOf(tunnel) !== undefined) queueMicrotask(() => tunnel.cut("killed"));
    const { pipeline, epoch } = tunnel.judgedBy;
    const rules = this.#rules;
    // The rules changed while it was judged or dialled: the recheck of open tunnels did not include it.
    if (rules !== undefined && (epoch !== this.#epoch || pipeline !== chainOf(tunnel, rules))) {
      void this.#judge(tunnel, rules);
    }
    return slot;
  }

  delete(slot: number): void {
    this.#open.delete(slot);
  }

  /**
   * Judges every open tunnel by a new generation and cuts those that it refuses, and those of callers that it
   * does not know.
   *
   * Resolves with the number of tunnels cut. A tunnel whose check fails is cut: a failure of a check is a refusal.
   */
  async recheck(rules: TunnelRules): Promise<number> {
    this.#epoch += 1;
    this.#rules = rules;
    let cut = 0;
    for (const tunnel of this.#open) {
      if (!(await this.#judge(tunnel, rules))) cut += 1;
    }
    return cut;
  }

  /** False where the tunnel was cut. */
  async #judge(tunnel: OpenTunnel, rules: TunnelRules): Promise<boolean> {
    if (await isAllowed(tunnel, rules)) return true;
    tunnel.cut("revoked");
    return false;
  }

  /** Cuts those that an operator has stopped; how many there were. */
  cutKilled(): number {
    let cut = 0;
    for (const tunnel of this.#open) {
      if (this.#killOf(tunnel) === undefined) continue;
      tunnel.cut("killed");
      cut += 1;
    }
    for (const tunnel of this.#opening) {
      const kill = this.#killOf(tunnel);
      if (kill === undefined) continue;
      tunnel.kill(killDenial(kill));
      cut += 1;
    }
    return cut;
  }

  #killOf({ facts, context }: Pick<OpenTunnel, "facts" | "context">): Kill | undefined {
    const known = context ?? facts;
    return known instanceof RequestContext
      ? this.#kills?.findFor(known)
      : this.#kills?.find({ flow: facts.flow, sessionId: undefined });
  }

  /** Cuts all of them. */
  cutAll(): void {
    for (const tunnel of this.#open) tunnel.cut("draining");
  }
}

function chainOf({ facts }: OpenTunnel, rules: TunnelRules): Pipeline {
  return facts.flow.direction === "inbound" ? rules.inbound : rules.outbound;
}

async function isAllowed(tunnel: OpenTunnel, rules: TunnelRules): Promise<boolean> {
  const { flow, stage } = tunnel.facts;
  // The listener's keys exempt it (listener.inbound_passthrough_ports), and they need a restart.
  if (flow.direction === "inbound" && stage === "connect") return true;
  // Callers and skipped hosts apply to outbound tunnels only.
  if (flow.direction === "outbound") {
    if (!(rules.callers?.knows(flow.client.caller) ?? true)) return false;
    if (rules.skipHosts.matches(flow.destination.host)) return true;
  }
  return isPermitted(tunnel, chainOf(tunnel, rules));
}

async function isPermitted(
  { facts, judgedBy, isBridged = false, readsMessages = false }: OpenTunnel,
  pipeline: Pipeline,
): Promise<boolean> {
  // Its messages would still be judged by the old pipeline, which is retired.
  if (readsMessages && pipeline !== judgedBy.pipeline) return false;
  const { flow, stage, method, path, host, headers, hasBody, cancellation, upgrade } = facts;
  const context = new RequestContext({
    flow,
    stage,
    method,
    path,
    host,
    headers: headers.clone(),
    hasBody,
    cancellation,
    upgrade,
  });
  context.isHypothetical = true;
  context.isOpen = true;
  try {
    const verdict = await pipeline.runRequest(context, { deferDefault: isBridged });
    const isSeen = isBridged || context.tunnelTerms.mustInspect === undefined;
    const { messages } = pipeline;
    const isRead =
      readsMessages ||
      upgrade === undefined ||
      !(messages.areNeeded(context, "client") || messages.areNeeded(context, "server"));
    return verdict.kind === "permit" && isSeen && isRead;
  } catch {
    // A failure of a check is a refusal.
    return false;
  }
}
