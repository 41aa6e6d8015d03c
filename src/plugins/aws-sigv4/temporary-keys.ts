/** Keys that end: when they are renewed, and how the threads of the process fetch them once for all. */
import type { Clock } from "../../duration.ts";
import { messageOf } from "../../errors.ts";
import type { OnceForAll } from "../../pipeline/once-for-all.ts";
import { Secret } from "../../secret.ts";
import { SigningKeys } from "./signing-keys.ts";

/** Keys that may be signed with now. */
export interface RealKeys {
  readonly keys: SigningKeys;
  readonly sessionToken: Secret | undefined;
  /** Milliseconds since the epoch; undefined for keys that do not end. */
  readonly endsAt: number | undefined;
}

/** Why there are no keys, in words for an operator and without a secret. */
export class KeysUnavailable extends Error {}

/** Renewed so long before they end, or so large a part of their life, whichever is shorter. */
const aheadMs = 300_000;
const aheadPart = 0.2;
/** Longest that the call of another thread is waited for. */
const otherCallMs = 30_000;

/** Keys as the threads of the process tell each other of them. */
interface ToldKeys {
  readonly id: string;
  readonly secret: string;
  readonly token: string | undefined;
  readonly endsAt: number | undefined;
}

/** The first thread that needs them asks for all; what others were told they renew when it would. */
export async function loadedOnce(
  others: OnceForAll,
  key: string,
  clock: Clock,
  load: () => Promise<RealKeys>,
): Promise<RealKeys> {
  let own: RealKeys | undefined;
  let problem: unknown;
  const text = await others.othersOr(key, otherCallMs, async () => {
    try {
      own = await load();
    } catch (error) {
      problem = error;
      // Those who wait for it wait for this one, and do not ask an endpoint that has just failed.
      return { text: JSON.stringify({ problem: messageOf(error) }), keepMs: 0 };
    }
    const { keys, sessionToken, endsAt } = own;
    const told: ToldKeys = {
      id: keys.accessKeyId,
      secret: keys.secret.reveal(),
      token: sessionToken?.reveal(),
      endsAt,
    };
    const now = clock.now();
    return { text: JSON.stringify(told), keepMs: Math.max(0, renewalOf(own, now) - now) };
  });
  if (own !== undefined) return own;
  if (problem !== undefined) throw problem;
  // It was written above.
  const told = JSON.parse(text ?? "{}") as ToldKeys | { readonly problem?: string };
  if (!("id" in told)) throw new KeysUnavailable(told.problem ?? "another thread has no keys");
  const { id, secret, token, endsAt } = told;
  return {
    keys: new SigningKeys(id, new Secret(secret)),
    sessionToken: token === undefined ? undefined : new Secret(token),
    endsAt,
  };
}

/** When keys are renewed: ahead of their end, by a part of the life that they have now. */
export function renewalOf({ endsAt = Infinity }: RealKeys, now: number): number {
  const life = endsAt - now;
  return now + life - Math.min(aheadMs, life * aheadPart);
}
