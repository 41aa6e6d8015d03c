/** Connects to a Unix socket that the operator's file names. No name is resolved and no address is vetted: it is a file. */
import { once } from "node:events";
import net from "node:net";
import { messageOf, ProxyError } from "../errors.ts";

/** Rejects with `upstream.timeout` or `upstream.refused`. The socket is the caller's to destroy. */
export async function connectUnixSocket(
  path: string,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<net.Socket> {
  const late = AbortSignal.timeout(timeoutMs);
  const socket = net.connect({ path });
  // Between here and the owner's own listener a reset must not become an uncaught exception.
  socket.on("error", () => undefined);
  try {
    await once(socket, "connect", { signal: AbortSignal.any([signal, late]) });
    return socket;
  } catch (cause) {
    socket.destroy();
    if (late.aborted) {
      const message = `unix://${path} did not accept a connection in ${timeoutMs} ms`;
      throw new ProxyError("upstream.timeout", message, { cause });
    }
    const why = (cause as NodeJS.ErrnoException).code ?? messageOf(cause);
    throw new ProxyError("upstream.refused", `unix://${path} could not be reached: ${why}`, {
      cause,
    });
  }
}
