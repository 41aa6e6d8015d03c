/** A tunnel that carries plain HTTP, or may turn out to. */
import { FirstLine } from "../../net/first-line.ts";
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
  const established = { ...tunnel, head, isEstablished: true };
  // Its server may be the one to speak first; if not, a request may still come.
  if (first.kind === "timeout") return lookingTunnel(services, server, established);
  return spliceTunnel(services, { ...established, firstLine: new FirstLine() });
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
