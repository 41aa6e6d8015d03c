/** Two ends of one loopback connection. */
import type { Socket } from "node:net";
import { connect, createServer } from "node:net";
import { once } from "node:events";

/** A connected pair; `close` destroys both ends. */
export interface SocketPair {
  readonly client: Socket;
  readonly server: Socket;
  close(): void;
}

/** Opens a pair. Both ends have an error listener, and the server end behaves like one taken from an HTTP server. */
export async function socketPair(): Promise<SocketPair> {
  const listener = createServer({ allowHalfOpen: true, pauseOnConnect: true });
  listener.listen(0, "127.0.0.1");
  await once(listener, "listening");
  const address = listener.address();
  if (address === null || typeof address === "string") throw new Error("no port");
  const accepted = once(listener, "connection");
  const client = connect({ port: address.port, host: "127.0.0.1", noDelay: true });
  client.on("error", () => undefined);
  const [server] = (await accepted) as [Socket];
  server.on("error", () => undefined);
  if (client.connecting) await once(client, "connect");
  listener.close();
  return {
    client,
    server,
    close: () => {
      client.destroy();
      server.destroy();
    },
  };
}
