/** A client of SOCKS5, whose every byte a test may choose. */
import { isIP } from "node:net";
import { parseAddress } from "../../src/net/address.ts";
import { type Address, RawClient } from "./http-client.ts";

/** The bytes of a request (RFC 1928 section 4) for a name, or for an address where the host is one. */
export function socksRequest(host: string | Buffer, port: number, command = 1): Buffer {
  const ends = Buffer.of(port >> 8, port & 0xff);
  return Buffer.concat([Buffer.of(5, command, 0), addressOf(host), ends]);
}

function addressOf(host: string | Buffer): Buffer {
  const text = typeof host === "string" ? host.replace(/^\[|\]$/g, "") : "";
  const address = isIP(text) === 0 ? undefined : parseAddress(text);
  if (address === undefined) {
    const name = typeof host === "string" ? Buffer.from(host, "utf8") : host;
    return Buffer.concat([Buffer.of(3, name.length), name]);
  }
  return Buffer.concat([Buffer.of(address.version === 4 ? 1 : 4), address.bytes]);
}

/** The bytes of a user name and password (RFC 1929). */
export function socksCredentials(name: string, password: string): Buffer {
  const texts = [Buffer.from(name), Buffer.from(password)];
  return Buffer.concat([Buffer.of(1), ...texts.flatMap((text) => [Buffer.of(text.length), text])]);
}

/** No authentication is all that the client offers. */
export const socksGreeting = Buffer.of(5, 1, 0);

/** What a dialogue came to: the reply to the request; `undefined` where it ended before that. */
export interface SocksOpened {
  readonly client: RawClient;
  readonly reply: number | undefined;
}

/** Asks for a connection; a reply of 0 makes the client the tunnel. */
export async function openSocks(
  address: Address,
  host: string | Buffer,
  port: number,
  credentials?: readonly [name: string, password: string],
): Promise<SocksOpened> {
  return socksOver(await RawClient.connect(address), socksRequest(host, port), credentials);
}

/** The same on a connection that is there. */
export async function socksOver(
  client: RawClient,
  request: Buffer,
  credentials?: readonly [name: string, password: string],
): Promise<SocksOpened> {
  client.send(credentials === undefined ? socksGreeting : Buffer.of(5, 1, 2));
  const [, method] = await client.reader.exactly(2);
  if (method === 2 && credentials !== undefined) {
    client.send(socksCredentials(...credentials));
    const [, status] = await client.reader.exactly(2);
    if (status !== 0) return { client, reply: undefined };
  } else if (method !== 0) return { client, reply: undefined };
  client.send(request);
  const [, reply] = await client.reader.exactly(10);
  return { client, reply };
}
