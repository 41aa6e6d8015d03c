/** The five maps of `/stats`, in the Go program's shape, counted from the records of the two plugins it knew. */

/** One step's record, as far as counters look at it; an Invocation of the pipeline fits. */
export interface CountedInvocation {
  readonly plugin: string;
  readonly action: "allow" | "deny" | "skip" | "modify" | "observe";
  readonly reason: string;
  readonly cause?: string | undefined;
  readonly shadow?: true | undefined;
}

/** Contract 4.9; only counters that are not zero appear. */
export interface GoStats {
  readonly inbound_approvals: Readonly<Record<string, number>>;
  readonly inbound_denials: Readonly<Record<string, number>>;
  readonly outbound_approvals: Readonly<Record<string, number>>;
  readonly outbound_denials: Readonly<Record<string, number>>;
  readonly outbound_replace_tokens: Readonly<Record<string, number>>;
}

/** So many more of one reason. */
export type GoChange = readonly [map: keyof GoStats, reason: string, more: number];

const maxReasons = 64;

/** Counts what `/stats` shows. A refusal that `on_error: observe` muted is not a refusal and is not counted. */
export class GoStatsCounter {
  readonly #maps: Record<keyof GoStats, Map<string, number>> = {
    inbound_approvals: new Map(),
    inbound_denials: new Map(),
    outbound_approvals: new Map(),
    outbound_denials: new Map(),
    outbound_replace_tokens: new Map(),
  };
  readonly #given = new Map<string, number>();

  count(invocation: CountedInvocation): void {
    if (invocation.shadow === true) return;
    if (invocation.plugin === "jwt-validation") this.#countValidation(invocation);
    else if (invocation.plugin === "token-exchange") this.#countExchange(invocation);
  }

  /** What was counted since this was asked last, for the counter of another thread. */
  changes(): GoChange[] {
    const changed: GoChange[] = [];
    for (const name of Object.keys(this.#maps) as (keyof GoStats)[]) {
      for (const [reason, count] of this.#maps[name]) {
        const key = `${name} ${reason}`;
        const more = count - (this.#given.get(key) ?? 0);
        this.#given.set(key, count);
        if (more > 0) changed.push([name, reason, more]);
      }
    }
    return changed;
  }

  /** Adds what another thread has counted. */
  addAll(changes: readonly GoChange[]): void {
    for (const [name, reason, more] of changes) this.#add(name, reason, more);
  }

  snapshot(): GoStats {
    const maps = this.#maps;
    return {
      inbound_approvals: Object.fromEntries(maps.inbound_approvals),
      inbound_denials: Object.fromEntries(maps.inbound_denials),
      outbound_approvals: Object.fromEntries(maps.outbound_approvals),
      outbound_denials: Object.fromEntries(maps.outbound_denials),
      outbound_replace_tokens: Object.fromEntries(maps.outbound_replace_tokens),
    };
  }

  #countValidation({ action, reason }: CountedInvocation): void {
    if (action === "deny") this.#add("inbound_denials", reason);
    else if (reason === "authorized" || reason === "placeholder_minted")
      this.#add("inbound_approvals", "authorized");
    else if (reason === "path_bypass") this.#add("inbound_approvals", "passthrough");
  }

  #countExchange({ action, reason }: CountedInvocation): void {
    if (action === "deny") this.#add("outbound_denials", reason);
    else if (action === "modify") {
      this.#add("outbound_replace_tokens", reason === "token_replaced" ? "replace_token" : reason);
    } else if (
      reason === "no_matching_route" ||
      reason === "passthrough" ||
      reason === "no_token_policy"
    ) {
      this.#add("outbound_approvals", reason);
    }
  }

  #add(map: keyof GoStats, reason: string, more = 1): void {
    const counts = this.#maps[map];
    const known = counts.has(reason) || counts.size < maxReasons;
    const key = known ? reason : "other";
    counts.set(key, (counts.get(key) ?? 0) + more);
  }
}
