/** Base32 (RFC 4648 section 6), which Node does not have. */

const base32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** The digits of these bytes, without padding. */
export function toBase32(bytes: Buffer): string {
  let text = "";
  let [bits, held] = [0, 0];
  for (const byte of bytes) {
    held = ((held << 8) | byte) & 0xffff;
    bits += 8;
    while (bits >= 5) {
      bits -= 5;
      text += base32[(held >>> bits) & 31];
    }
  }
  return bits === 0 ? text : text + base32[(held << (5 - bits)) & 31];
}

/** The bytes of a text in base32 of either case, up to the first character that is none. */
export function fromBase32(text: string): Buffer {
  const bytes: number[] = [];
  let [bits, held] = [0, 0];
  for (const character of text.toUpperCase()) {
    const digit = base32.indexOf(character);
    if (digit === -1) break;
    held = ((held << 5) | digit) & 0xffff;
    bits += 5;
    if (bits < 8) continue;
    bits -= 8;
    bytes.push((held >>> bits) & 255);
  }
  return Buffer.from(bytes);
}
