/** CONNECT over HTTP/2: tunnels that are streams of one connection. */
import { once } from "node:events";
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect,
  type OutgoingHttpHeaders,
  type SecureClientSessionOptions,
} from "node:http2";
import { within } from "./eventually.ts";
import type { Address } from "./http-client.ts";

/** A session with a forward port, in the clear unless there is an authority to trust. */
export async function proxySession(
  { host, port }: Address,
  options: SecureClientSessionOptions = {},
): Promise<ClientHttp2Session> {
  const scheme = options.ca === undefined ? "http" : "https";
  // A client of Node refuses itself streams above 10 MB that it has not written yet.
  const session = connect(`${scheme}://${host}:${port}`, { maxSessionMemory: 100, ...options });
  session.on("error", () => undefined);
  await within("settings of the proxy", once(session, "remoteSettings"));
  return session;
}

/** What came of a CONNECT; the stream of a 200 is the tunnel. */
export interface StreamConnected {
  readonly status: number;
  readonly stream: ClientHttp2Stream;
  readonly headers: Readonly<Record<string, unknown>>;
}

/** Asks for a tunnel. Rejects where the stream is reset before there is a response. */
export async function connectStream(
  session: ClientHttp2Session,
  authority: string,
  fields: OutgoingHttpHeaders = {},
): Promise<StreamConnected> {
  const stream = session.request({ ":method": "CONNECT", ":authority": authority, ...fields });
  const [headers] = (await within("a response to CONNECT", once(stream, "response"))) as [
    Readonly<Record<string, unknown>>,
  ];
  stream.on("error", () => undefined);
  return { status: Number(headers[":status"]), stream, headers };
}
