/** How a refusal of a token endpoint can be understood. */

/**
 * Whose fault a refusal is.
 *
 * - `caller-token`: the caller's token is no good, a new one may help.
 * - `caller-right`: the token is good, the caller may not have what is asked for.
 * - `registration`: this program's own client is wrong or wrongly set up at the identity provider.
 * - `provider`: the identity provider is out of order or asks to wait.
 */
export type RefusalMeaning = "caller-token" | "caller-right" | "registration" | "provider";

/** Whose turn it is, and what the operator can change. */
export interface Understood {
  readonly meaning: RefusalMeaning;
  /** For the operator's log. */
  readonly remedy?: string;
}
