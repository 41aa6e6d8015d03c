/** What a captured connection asks before anything is dialled for it. */
import type { AbortSource } from "../../net/abort-source.ts";
import type { Permit } from "../../pipeline/pipeline.ts";
import type { Upstream } from "../../upstream/upstream.ts";

/**
 * Asked with each permit before anything is dialled for a captured connection; nothing once the first check was good.
 *
 * Rejects with `request.misdirected` when the client dialled an address that the permitted name does not have.
 */
export type ConfirmCaptured = (
  permit: Permit,
  upstream: Upstream,
  signal: AbortSource,
) => Promise<void> | undefined;
