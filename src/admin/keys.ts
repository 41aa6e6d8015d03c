/** The public keys with which checkpoints and receipts are checked. */
import { type AdminRoute, json } from "./server.ts";

/** GET /v1/keys: a JWK set. Whoever asks may know them. */
export function keyRoutes(keys: (() => readonly object[]) | undefined): AdminRoute[] {
  if (keys === undefined) return [];
  return [{ path: "/v1/keys", isOpen: true, handle: () => json({ keys: keys() }) }];
}
