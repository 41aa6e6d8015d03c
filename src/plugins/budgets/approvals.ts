/** Approval by somebody outside: asked once for all messages of a session that wait for it, and kept for a while. */
import { BoundedMap } from "../../bounded-map.ts";
import { isObject } from "../../http/json-access.ts";
import { messageOf } from "../../errors.ts";
import type { PluginDeps } from "../../pipeline/plugin.ts";

/** Options of {@link Approvals}. */
export interface ApprovalOptions {
  readonly url: string;
  readonly timeoutMs: number;
  /** How long an approval holds. */
  readonly graceMs: number;
  /** What counts where nobody answers. */
  readonly otherwise: boolean;
  readonly deps: Pick<PluginDeps, "clock" | "fetch" | "log" | "count">;
}

/** What came of a question. */
export interface Approval {
  readonly isApproved: boolean;
  /** It was given before. */
  readonly isKept: boolean;
}

const maxSessions = 10_000;
const maxResponseBytes = 4_096;

/** The approvals of one instance. */
export class Approvals {
  readonly #options: ApprovalOptions;
  readonly #approvedAt = new BoundedMap<string, number>(maxSessions);
  readonly #asking = new Map<string, Promise<boolean>>();

  constructor(options: ApprovalOptions) {
    this.#options = options;
  }

  /** Never rejects. Bounded by the time-out of the question. */
  async ask(session: string, question: object): Promise<Approval> {
    const { graceMs, deps } = this.#options;
    const approvedAt = this.#approvedAt.get(session);
    if (approvedAt !== undefined && deps.clock.now() - approvedAt < graceMs) {
      return { isApproved: true, isKept: true };
    }
    const asking = this.#asking.get(session) ?? this.#question(session, question);
    this.#asking.set(session, asking);
    try {
      return { isApproved: await asking, isKept: false };
    } finally {
      if (this.#asking.get(session) === asking) this.#asking.delete(session);
    }
  }

  async #question(session: string, question: object): Promise<boolean> {
    const { url, timeoutMs, otherwise, deps } = this.#options;
    try {
      const { status, body } = await deps.fetch(url, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify(question),
        timeoutMs,
        maxBytes: maxResponseBytes,
      });
      if (status !== 200) throw new Error(`it answered ${status}`);
      const answer: unknown = JSON.parse(body.toString("utf8"));
      const isApproved = isObject(answer) && answer["action"] === "approve";
      if (isApproved) this.#approvedAt.renew(session, deps.clock.now());
      deps.count(isApproved ? "approved" : "disapproved");
      return isApproved;
    } catch (error) {
      deps.count("approval_failed");
      deps.log.warn({ error: messageOf(error) }, "session-budget: no answer of pause_webhook");
      return otherwise;
    }
  }
}
