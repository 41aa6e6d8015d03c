/** What the harness tells a peer: the origin's ports and whether to act as reverse proxy. */
export interface PeerArguments {
  readonly originHttp: number;
  readonly originRaw: number;
  readonly reverse: boolean;
}

/** Reads `HTTP_PORT RAW_PORT forward|reverse` from the command line. */
export function peerArguments(): PeerArguments {
  const [http, raw, kind] = process.argv.slice(2);
  return { originHttp: Number(http), originRaw: Number(raw), reverse: kind === "reverse" };
}
