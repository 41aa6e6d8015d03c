/** A client of mutual TLS, as another sidecar is one. */
import { connect, type ConnectionOptions, type TLSSocket } from "node:tls";
import { RawClient, type Address } from "./http-client.ts";
import type { TestSvid } from "./spiffe-authority.ts";

/** Opens a connection and waits for the end of the handshake as the client sees it. */
export async function peerSocket(
  { host, port }: Address,
  svid: Pick<TestSvid, "cert" | "key"> | undefined,
  options: ConnectionOptions = {},
): Promise<TLSSocket> {
  const socket = connect({
    host,
    port,
    // What it shows is looked at where a test is about that.
    rejectUnauthorized: false,
    ...(svid === undefined ? {} : { cert: svid.cert, key: svid.key }),
    ...options,
  });
  socket.setNoDelay(true);
  await new Promise<void>((resolve, reject) => {
    socket.once("secureConnect", resolve);
    socket.once("error", reject);
  });
  socket.on("error", () => undefined);
  return socket;
}

/** The same, for requests. */
export async function peerClient(
  address: Address,
  svid: Pick<TestSvid, "cert" | "key"> | undefined,
  options: ConnectionOptions = {},
): Promise<RawClient> {
  return RawClient.over(await peerSocket(address, svid, options));
}

/** The status of one request, or `refused` where the connection ends without a response. */
export async function peerStatus(
  address: Address,
  svid: Pick<TestSvid, "cert" | "key"> | undefined,
  target = "/",
): Promise<number | "refused"> {
  let client: RawClient;
  try {
    client = await peerClient(address, svid);
  } catch {
    return "refused";
  }
  try {
    return (await client.ask({ target, headers: { Host: "agent.test" } })).status;
  } catch {
    return "refused";
  } finally {
    client.close();
  }
}
