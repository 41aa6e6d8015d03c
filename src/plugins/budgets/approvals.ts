/** Approval by somebody outside: asked once for all messages of a session that wait for it, and kept for a while. */
import { hash } from "node:crypto";
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
  readonly deps: Pick<PluginDeps, "fetch" | "instance" | "log" | "count" | "shared">;
}

/** What came of a question. */
export interface Approval {
  readonly isApproved: boolean;
  /** It was given before. */
  readonly isKept: boolean;
}

const maxResponseBytes = 4_096;

/** The approvals of one instance; those that hold are known to every thread of the process, and after a reload. */
export class Approvals {
  readonly #options: ApprovalOptions;
  readonly #asking = new Map<string, Promise<boolean>>();

  constructor(options: ApprovalOptions) {
    this.#options = options;
  }

  /** Never rejects. Bounded by the time-out of the question. */
  async ask(session: string, question: object): Promise<Approval> {
    if (await this.#holds(session)) return { isApproved: true, isKept: true };
    const asking = this.#asking.get(session) ?? this.#question(session, question);
    this.#asking.set(session, asking);
    try {
      return { isApproved: await asking, isKept: false };
    } finally {
      if (this.#asking.get(session) === asking) this.#asking.delete(session);
    }
  }

  async #holds(session: string): Promise<boolean> {
    try {
      return (await this.#options.deps.shared.get(this.#keyOf(session))) !== undefined;
    } catch {
      // Whoever approved it is asked again.
      return false;
    }
  }

  async #keep(session: string): Promise<void> {
    const { graceMs, deps } = this.#options;
    if (graceMs === 0) return;
    try {
      await deps.shared.set(this.#keyOf(session), "approved", graceMs);
    } catch {
      deps.count("state_away");
    }
  }

  /** Of one length, however long the session's own name is. */
  #keyOf(session: string): string {
    return `session-budget ${this.#options.deps.instance} ${hash("sha256", session)}`;
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
      if (isApproved) await this.#keep(session);
      deps.count(isApproved ? "approved" : "disapproved");
      return isApproved;
    } catch (error) {
      deps.count("approval_failed");
      deps.log.warn({ error: messageOf(error) }, "session-budget: no answer of pause_webhook");
      return otherwise;
    }
  }
}
