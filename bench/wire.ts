/** The byte protocol that load generator and origin speak inside a tunnel: 8 bytes of hello, then data. */
export const HELLO_BYTES = 8;

/** First byte of the hello: what the origin does with the rest of the connection. */
export const ECHO = 0x01;
export const DOWNLOAD = 0x02;
export const UPLOAD = 0x03;

/** During an upload the origin answers one byte for every so many bytes it has received. */
export const ACK_EVERY_BYTES = 1024 * 1024;

/** A hello for one command. The bytes look like no protocol that a proxy might sniff. */
export function hello(command: number): Buffer {
  return Buffer.from([command, 0xfe, 0xfd, 0xfc, 0xfb, 0xfa, 0xf9, 0xf8]);
}
