/** Every HTTP exchange that runs in this thread, so that an operator can stop it. */
import { Slots } from "../../net/slots.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { KillSwitch } from "../../pipeline/kill-switch.ts";
import { killDenial } from "../../pipeline/kill-switch.ts";

/** One exchange. */
export interface LiveExchange {
  readonly context: RequestContext;
  /** Answers with the denial, or cuts the connection where the response has begun; false where it is over, or a tunnel. */
  kill(denial: Denial): boolean;
}

/** The exchanges that run. */
export class LiveExchanges {
  readonly #slots = new Slots<LiveExchange>();
  readonly #kills: KillSwitch;

  constructor(kills: KillSwitch) {
    this.#kills = kills;
  }

  add(exchange: LiveExchange): number {
    return this.#slots.add(exchange);
  }

  delete(slot: number): void {
    this.#slots.delete(slot);
  }

  /** Ends those that an operator has stopped; how many there were. */
  endKilled(): number {
    let ended = 0;
    for (const exchange of this.#slots) {
      const kill = this.#kills.findFor(exchange.context);
      if (kill !== undefined && exchange.kill(killDenial(kill))) ended += 1;
    }
    return ended;
  }
}
