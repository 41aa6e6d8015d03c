/** Words of other programs, for people who read them on a terminal. */

/** C0 and C1 controls: a terminal obeys U+009B as it does ESC [. Then the marks that turn the direction of what follows. */
const controls = String.raw`\u0000-\u001f\u007f-\u009f`;
const turns = String.raw`\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069`;
const unprintable = new RegExp(`[${controls}${turns}]+`, "g");
const unescaped = new RegExp(`[${controls}${turns}]`, "g");

/** A server's reason or a host name must not draw lines of its own, nor speak to the terminal. */
export function oneLine(text: string): string {
  return text.replace(unprintable, " ");
}

/** JSON in which nothing speaks to the terminal; the same value for programs. */
export function printableJson(value: unknown, indent?: number): string {
  // JSON escapes only what is below U+0020. Line ends stay: inside of strings they are escaped already.
  return JSON.stringify(value, null, indent).replace(unescaped, (character) =>
    character === "\n" ? character : escapeOf(character),
  );
}

function escapeOf(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`;
}
