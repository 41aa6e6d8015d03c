/** A tunnel that is expected to carry plain HTTP, or whose client may speak nothing else. */
import type { Denial } from "../../pipeline/decision.ts";
import type { Ending } from "../flow/finish.ts";
import type { BridgeServer } from "./bridge-server.ts";
import { tlsReplies } from "./captured-replies.ts";
import { renderDenial } from "../flow/reply.ts";
import { firstBytes, openedTunnel, serveClear } from "./opened.ts";
import { endOpened } from "./refused.ts";
import type { PermittedTunnel, TunnelServices } from "./request.ts";

/** A tunnel to splice. */
export interface Unread {
  readonly head: Buffer;
  /** Its server may be the one to speak first; if not, a request may still come. */
  readonly isSilent: boolean;
}

/**
 * Sends 200 without dialling, and goes by what the client speaks then; the bytes that go first where it is to be spliced.
 *
 * `unseen` says why nothing but requests may pass, where that is so.
 */
export async function clearTunnel(
  services: TunnelServices,
  server: BridgeServer,
  { tunnel, unseen }: { readonly tunnel: PermittedTunnel; readonly unseen: Denial | undefined },
): Promise<Ending | Unread> {
  const { client } = tunnel;
  tunnel.replies.established(client);
  const first = await firstBytes(tunnel);
  if (first.kind === "http")
    return openedTunnel(services, tunnel, () => serveClear(server, tunnel));
  if (unseen !== undefined) {
    if (first.kind === "opaque" && first.isTls === true)
      tlsReplies.refused(client, renderDenial(unseen));
    return endOpened(tunnel, unseen);
  }
  const head = first.kind === "closed" ? first.said : Buffer.alloc(0);
  return { head, isSilent: first.kind === "timeout" };
}
