/** JWT-SVIDs of this process, by the audience that they are for; wherever they come from. */
import type { Secret } from "../secret.ts";

/** One JWT-SVID, whose subject, audience and end were compared with what was asked for. */
export interface JwtSvid {
  readonly token: Secret;
  readonly spiffeId: string;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

/** Hands out JWT-SVIDs, each until half of its life is over. */
export interface JwtSource {
  /**
   * A JWT-SVID for one audience. Callers of the same audience share one fetch, and one token while it is young.
   *
   * Rejects with ProxyError `upstream.unreachable`, whose message says what the Workload API answered.
   */
  token(audience: string): Promise<JwtSvid>;
  /**
   * Why there is no usable token for the audience, in words for an operator; undefined when there is.
   *
   * Asking begins the fetch that would change that, and renews a token that is past half of its life: probes keep an
   * idle workload ready.
   */
  notReady(audience: string): string | undefined;
}
