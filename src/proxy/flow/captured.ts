/** The check of a captured connection before anything is dialled for it. */
import type { AbortSource } from "../../net/abort-source.ts";
import type { Permit } from "../../pipeline/pipeline.ts";
import type { Upstream } from "../../upstream/upstream.ts";

/**
 * Called with each permit before anything is dialled for a captured connection; a no-op once a check has passed.
 *
 * Rejects with `request.misdirected` when the client dialled an address that the permitted name does not have.
 */
export type ConfirmCaptured = (
  permit: Permit,
  upstream: Upstream,
  signal: AbortSource,
) => Promise<void> | undefined;
