/** A tunnel that carries plain HTTP, or may turn out to. */
import type { Denial } from "../../pipeline/decision.ts";
import type { Ending } from "../flow/finish.ts";
import type { BridgeServer } from "./bridge-server.ts";
import { tlsReplies } from "./captured-replies.ts";
import { renderDenial } from "../flow/reply.ts";
import { firstBytes, openedTunnel, serveClear } from "./opened.ts";
import { endOpened } from "./refused.ts";
import type { TunnelServices } from "./request.ts";
import { type SplicedTunnel, spliceTunnel } from "./spliced.ts";

/**
 * Sends 200 without dialling, and goes by what the client speaks then.
 *
 * `unseen` says why nothing but requests may pass, where that is so.
 */
export async function clearTunnel(
  services: TunnelServices,
  server: BridgeServer,
  { tunnel, unseen }: { readonly tunnel: SplicedTunnel; readonly unseen: Denial | undefined },
): Promise<Ending> {
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
  return spliceTunnel(services, { ...tunnel, head, isEstablished: true });
}

/** Splices, unless the client turns out to speak HTTP before its server has sent anything. */
export function lookingTunnel(
  services: TunnelServices,
  server: BridgeServer,
  tunnel: SplicedTunnel,
): Promise<Ending> {
  return spliceTunnel(services, {
    ...tunnel,
    onHttp: (openedAt) =>
      openedTunnel(services, { ...tunnel, openedAt }, () => serveClear(server, tunnel)),
  });
}
