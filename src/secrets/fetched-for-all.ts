/** What the first thread of the process that needs it fetches for all of them. */
import { messageOf } from "../errors.ts";
import type { OtherTokens } from "../oauth/token-cache.ts";
import { unavailable } from "./secret-source.ts";

/** No codec writes a text that begins so. */
const failed = "!";

/** How a value crosses to the other threads of the process, through their memory only: as JSON. */
export interface SecretCodec<T> {
  write(value: T): string;
  read(text: string): T;
}

/** Where threads find what one of them has fetched. */
export interface SharedFetch<T> {
  readonly shared: OtherTokens;
  readonly key: string;
  /** Longest that the fetch of another thread is waited for. */
  readonly limitMs: number;
  readonly codec: SecretCodec<T>;
  /** How long others take the value instead of asking. */
  keepMs(this: void, value: T): number;
}

/** The value; rejects with the fault of the own fetch, or with `secret.unavailable` in the words of another thread's. */
export async function fetchedForAll<T extends object>(
  { shared, key, limitMs, codec, keepMs }: SharedFetch<T>,
  fetch: () => Promise<T>,
): Promise<T> {
  let own: T | undefined;
  let fault: unknown;
  const told = await shared.othersOr(key, limitMs, async () => {
    try {
      own = await fetch();
      return { text: codec.write(own), keepMs: Math.max(0, keepMs(own)) };
    } catch (error) {
      fault = error;
      // Those who wait for it wait for this one, and do not ask a provider that has just failed.
      return { text: `${failed}${messageOf(error)}`, keepMs: 0 };
    }
  });
  if (own !== undefined) return own;
  if (fault !== undefined) throw fault;
  if (told?.startsWith(failed) === false) return codec.read(told);
  throw unavailable(told?.slice(failed.length) ?? "another thread made nothing of it");
}
