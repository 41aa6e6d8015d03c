/** Writes Amazon's binary event streams. */
import { crc32 } from "node:zlib";

/** One message with text headers and a payload. */
export function awsMessage(
  headers: Readonly<Record<string, string>>,
  payload: object | string,
): Buffer {
  const fields = Object.entries(headers).map(([name, value]) => {
    const head = Buffer.alloc(1 + Buffer.byteLength(name) + 3);
    head.writeUInt8(Buffer.byteLength(name), 0);
    head.write(name, 1);
    head.writeUInt8(7, head.length - 3);
    head.writeUInt16BE(Buffer.byteLength(value), head.length - 2);
    return Buffer.concat([head, Buffer.from(value)]);
  });
  const header = Buffer.concat(fields);
  const body = Buffer.from(typeof payload === "string" ? payload : JSON.stringify(payload));
  const prelude = Buffer.alloc(12);
  prelude.writeUInt32BE(12 + header.length + body.length + 4, 0);
  prelude.writeUInt32BE(header.length, 4);
  prelude.writeUInt32BE(crc32(prelude.subarray(0, 8)), 8);
  const message = Buffer.concat([prelude, header, body]);
  const sum = Buffer.alloc(4);
  sum.writeUInt32BE(crc32(message));
  return Buffer.concat([message, sum]);
}

/** An event as Bedrock sends it. */
export function awsEvent(event: string, payload: object): Buffer {
  const headers = {
    ":event-type": event,
    ":content-type": "application/json",
    ":message-type": "event",
  };
  return awsMessage(headers, payload);
}
