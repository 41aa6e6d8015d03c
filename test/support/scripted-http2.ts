/** HTTP/2 origins whose every frame is written by a test. */
import type { AddressInfo, Socket } from "node:net";
import tls from "node:tls";
import type { ServerCertificate } from "./certs.ts";
import { block, flag, type Frame, frame, frameType, preface } from "./http2-frames.ts";

/** One connection to a scripted origin. */
export class ScriptedConnection {
  /** How many connections came before it. */
  readonly index: number;
  readonly socket: Socket;
  #isGreeted = false;
  #unacknowledged = 0;

  constructor(index: number, socket: Socket) {
    this.index = index;
    this.socket = socket;
  }

  /** SETTINGS_MAX_CONCURRENT_STREAMS, or no settings at all (RFC 9113 section 6.5.2). */
  settings(maxStreams?: number): void {
    const payload = Buffer.alloc(maxStreams === undefined ? 0 : 6);
    if (maxStreams !== undefined) {
      payload.writeUInt16BE(3, 0);
      payload.writeUInt32BE(maxStreams, 2);
    }
    this.socket.write(frame(frameType.settings, 0, 0, payload));
    this.#isGreeted = true;
    for (; this.#unacknowledged > 0; this.#unacknowledged -= 1) this.acknowledge();
  }

  /** Acknowledges the client's settings, once its own have been sent (RFC 9113 section 3.4). */
  acknowledge(): void {
    if (this.#isGreeted) this.socket.write(frame(frameType.settings, flag.ack, 0));
    else this.#unacknowledged += 1;
  }

  /** A whole response without a body. */
  respond(stream: number, status = "200"): void {
    const flags = flag.endHeaders | flag.endStream;
    this.socket.write(frame(frameType.headers, flags, stream, block([[":status", status]])));
  }

  reset(stream: number, code: number): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt32BE(code);
    this.socket.write(frame(frameType.rstStream, 0, stream, payload));
  }

  goaway(lastStream: number, code = 0): void {
    const payload = Buffer.alloc(8);
    payload.writeUInt32BE(lastStream);
    payload.writeUInt32BE(code, 4);
    this.socket.write(frame(frameType.goaway, 0, 0, payload));
  }
}

/** What a connection does with each frame; it acknowledges settings by itself. */
export type Script = (connection: ScriptedConnection) => (frame: Frame) => void;

/** A listening origin. */
export interface ScriptedOrigin {
  readonly port: number;
  readonly connections: readonly ScriptedConnection[];
  close(): void;
}

/** Starts an origin that offers h2 alone. */
export async function scriptedHttp2(
  certificate: ServerCertificate,
  script: Script,
): Promise<ScriptedOrigin> {
  const connections: ScriptedConnection[] = [];
  const server = tls.createServer({ ...certificate, ALPNProtocols: ["h2"] }, (socket) => {
    socket.on("error", () => undefined);
    const connection = new ScriptedConnection(connections.length, socket);
    connections.push(connection);
    const heard = script(connection);
    socket.on(
      "data",
      onFrames((next) => {
        if (next.type === frameType.settings && (next.flags & flag.ack) === 0)
          connection.acknowledge();
        heard(next);
      }),
    );
  });
  server.on("tlsClientError", () => undefined);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    port: (server.address() as AddressInfo).port,
    connections,
    close: () => {
      for (const { socket } of connections) socket.destroy();
      server.close();
    },
  };
}

/** True for the frame with which a request is whole. */
export function endsRequest({ type, flags }: Frame): boolean {
  const isMessage = type === frameType.headers || type === frameType.data;
  return isMessage && (flags & flag.endStream) !== 0;
}

/** Calls back with each frame as its last byte comes. */
function onFrames(heard: (frame: Frame) => void): (chunk: Buffer) => void {
  let bytes = Buffer.alloc(0);
  let isGreeted = false;
  return (chunk) => {
    bytes = Buffer.concat([bytes, chunk]);
    if (!isGreeted && bytes.length >= preface.length) {
      isGreeted = true;
      bytes = bytes.subarray(preface.length);
    }
    if (!isGreeted) return;
    while (bytes.length >= 9 && bytes.length >= 9 + bytes.readUIntBE(0, 3)) {
      const end = 9 + bytes.readUIntBE(0, 3);
      const next = {
        type: bytes.readUInt8(3),
        flags: bytes.readUInt8(4),
        stream: bytes.readUInt32BE(5) & 0x7fff_ffff,
        payload: bytes.subarray(9, end),
      };
      bytes = bytes.subarray(end);
      heard(next);
    }
  };
}
