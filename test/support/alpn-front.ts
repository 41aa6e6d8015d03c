/** A TLS origin that treats clients by whether they offer h2, as no ALPN callback of Node lets a server do. */
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";

/** Handshakes that came, by what they offered. */
export interface AlpnFront {
  readonly port: number;
  readonly offers: { h2: number; others: number };
  close(): void;
}

/** Hands connections that offer h2 to one and the others to the other; both have the ClientHello before them. */
export async function alpnFront(
  onH2: (socket: Socket) => void,
  onOthers: (socket: Socket) => void,
): Promise<AlpnFront> {
  const offers = { h2: 0, others: 0 };
  const server: Server = createServer((socket) => {
    socket.on("error", () => undefined);
    socket.once("readable", () => {
      const hello = socket.read() as Buffer | null;
      if (hello === null) return;
      socket.unshift(hello);
      // The protocol's name with its length before it, as RFC 7301 section 3.1 writes it.
      const isH2 = hello.includes("\x02h2", 0, "latin1");
      offers[isH2 ? "h2" : "others"] += 1;
      (isH2 ? onH2 : onOthers)(socket);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { port: (server.address() as AddressInfo).port, offers, close: () => void server.close() };
}
