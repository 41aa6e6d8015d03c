/** Text that an agent chose, as persons may read it: nothing in it moves, hides or turns what stands beside it. */
import { ownText } from "../bounded-map.ts";

/**
 * What has no glyph of its own: controls of terminals, marks of direction, characters of no width, tags, fillers, spaces that
 * are none of ASCII, halves of characters.
 */
const unseen = /[\p{C}\p{Default_Ignorable_Code_Point}\p{Zl}\p{Zp}\u2800]|(?! )\p{Zs}/gu;

/** Each such character as `\u{code}`. */
export function visible(text: string): string {
  return text.replaceAll(
    unseen,
    (character) => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
  );
}

/** No longer than that, with its beginning and its end: an agent may put what matters anywhere. */
export function shownText(text: string, maxLength: number): string {
  const seen = visible(text);
  // Questions are remembered for longer than what they are about.
  if (seen.length <= maxLength) return ownText(seen);
  const note = ` … ${seen.length - maxLength} characters left out … `;
  const head = Math.ceil(maxLength * 0.75);
  return ownText(seen.slice(0, head) + note + seen.slice(head - maxLength));
}
