/** What an authorization service said, whatever it was asked over. */
import type { DecisionDetails } from "../../pipeline/plugin.ts";

/** What becomes of a field: `append_action` of Envoy's HeaderValueOption, by its number. */
export type FieldAction = "append" | "add" | "overwrite" | "overwrite-if-exists";

/** One field that the service sets. */
export interface FieldChange {
  readonly name: string;
  readonly value: string;
  readonly action: FieldAction;
}

/** The request may go on, with these changes. */
export interface Allowed {
  readonly kind: "allowed";
  readonly fields: readonly FieldChange[];
  readonly removed: readonly string[];
  /** For the response to the client. */
  readonly responseFields: readonly FieldChange[];
  readonly query: {
    readonly set: readonly (readonly [name: string, value: string])[];
    readonly removed: readonly string[];
  };
  readonly metadata: DecisionDetails;
}

/** The service refused, with a response of its own. */
export interface Denied {
  readonly kind: "denied";
  readonly status: number;
  readonly fields: readonly (readonly [name: string, value: string])[];
  readonly body: Buffer;
  readonly metadata: DecisionDetails;
}

/** Nothing is known. `busy`: nobody was asked, as too many others were. */
export interface NoVerdict {
  readonly kind: "failed" | "busy";
  readonly why: string;
}

export type Verdict = Allowed | Denied | NoVerdict;

/** Everything that came is read, or nothing is: what is thrown here is an Error in words. */
export function statusFrom(code: number, preset: number): number {
  if (code === 0) return preset;
  if (code < 200 || code > 599) throw new Error(`it denied with the status ${code}`);
  return code;
}
