/** Keys that end: when they are renewed, and how they cross to the other threads of the process. */
import type { Clock } from "../../duration.ts";
import type { OnceForAll } from "../../pipeline/once-for-all.ts";
import { Secret } from "../../secret.ts";
import type { SecretCodec, SharedFetch } from "../../secrets/fetched-for-all.ts";
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

const codec: SecretCodec<RealKeys> = {
  write: ({ keys: { accessKeyId: id, secret }, sessionToken, endsAt }) =>
    JSON.stringify({ id, secret: secret.reveal(), token: sessionToken?.reveal(), endsAt }),
  read: (text) => {
    type Told = Record<"id" | "secret", string> & { readonly token?: string; endsAt?: number };
    const { id, secret, token, endsAt } = JSON.parse(text) as Told;
    const sessionToken = token === undefined ? undefined : new Secret(token);
    return { keys: new SigningKeys(id, new Secret(secret)), sessionToken, endsAt };
  },
};

/** How threads share the keys under this key: what others were told they renew when the first would. */
export function sharedKeys(shared: OnceForAll, key: string, clock: Clock): SharedFetch<RealKeys> {
  const keepMs = (keys: RealKeys): number => renewalOf(keys, clock.now()) - clock.now();
  return { shared, key, limitMs: otherCallMs, codec, keepMs };
}

/** When keys are renewed: ahead of their end, by a part of the life that they have now. */
export function renewalOf({ endsAt = Infinity }: RealKeys, now: number): number {
  const life = endsAt - now;
  return now + life - Math.min(aheadMs, life * aheadPart);
}
