/** Operators of a journey: they see what is open, and decide. */
import { eventually } from "./eventually.ts";
import { request, type RawResponse } from "./http-client.ts";
import type { ProxyProcess } from "./proxy.ts";

/** An open question as the session API shows it. */
export interface ShownApproval {
  readonly id: string;
  readonly plugin: string;
  readonly rule?: string;
  readonly why: string;
  readonly votes: readonly string[];
  readonly request: Readonly<Record<string, unknown>>;
}

/** One operator, with a secret. */
export class Approver {
  readonly #proxy: Pick<ProxyProcess, "address">;
  readonly #secret: string;

  constructor(proxy: Pick<ProxyProcess, "address">, secret: string) {
    this.#proxy = proxy;
    this.#secret = secret;
  }

  async pending(): Promise<readonly ShownApproval[]> {
    const { text } = await request(this.#proxy.address("sessions"), {
      target: "/v1/approvals",
      headers: { Host: "localhost", Authorization: `Bearer ${this.#secret}` },
    });
    return (JSON.parse(text) as { approvals: ShownApproval[] }).approvals;
  }

  /** Waits until so many are open. */
  async waitFor(count: number): Promise<readonly ShownApproval[]> {
    return eventually(async () => {
      const open = await this.pending();
      return open.length === count && open;
    });
  }

  async next(): Promise<ShownApproval> {
    const [first] = await this.waitFor(1);
    if (first === undefined) throw new Error("nothing is open");
    return first;
  }

  decide(id: string, form: Readonly<Record<string, string>>): Promise<RawResponse> {
    return request(this.#proxy.address("sessions"), {
      method: "POST",
      target: `/v1/approvals/${id}`,
      headers: {
        Host: "localhost",
        Authorization: `Bearer ${this.#secret}`,
        "Content-Type": "application/json",
      },
      body: JSON.stringify(form),
    });
  }

  allow(id: string, form: Readonly<Record<string, string>> = {}): Promise<RawResponse> {
    return this.decide(id, { decision: "allow", ...form });
  }

  deny(id: string, reason = ""): Promise<RawResponse> {
    return this.decide(id, { decision: "deny", reason });
  }
}
