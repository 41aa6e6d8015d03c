/** Cutting a connection so that its other side sees that something is missing. */
import { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { TLSSocket } from "node:tls";

/** Closes at once, with a reset where that is possible: a FIN would make what is cut look whole. */
export function cutOff(stream: Duplex): void {
  if (canReset(stream)) stream.resetAndDestroy();
  // Also after resetAndDestroy(), which alone would first wait for a stuck peer to take what is queued.
  stream.destroy();
}

/**
 * TLS shows a cut by the missing close_notify; a socket without a family is not TCP or is closed already.
 *
 * While its FIN is on its way a socket cannot be reset: libuv refuses (EINVAL), and Node then never closes it, so that the
 * descriptor and the process stay for ever. All that was written has left by then.
 */
function canReset(stream: Duplex): stream is Socket {
  const isEnding = stream.writableEnded && !stream.writableFinished && stream.writableLength === 0;
  return (
    stream instanceof Socket &&
    !(stream instanceof TLSSocket) &&
    stream.remoteFamily !== undefined &&
    !stream.destroyed &&
    !isEnding
  );
}
