/** Takes out of a text what its reader does not see. */
import { hasTags, readPage } from "./html-parts.ts";
import { withoutInvisible } from "./invisible.ts";
import { isCarryingOut } from "./links.ts";

const image =
  /!\[(?:[^\][\n]|\[[^\][\n]{0,100}\]){0,300}\]\(\s{0,4}<?([^)\s>][^)\n>]{0,1000})>?\s{0,4}\)/g;

/** The text without hidden elements, comments, words in attributes, invisible characters, and images that carry something out. */
export function stripHidden(text: string): string {
  let seen = text;
  if (hasTags(text)) {
    const parts: string[] = [];
    let done = 0;
    const { hidden, images } = readPage(text);
    const gone = [
      ...hidden.filter(({ kind }) => kind !== "script"),
      ...images.filter(({ url }) => isCarryingOut(url)),
    ];
    for (const { start, end } of gone.sort((a, b) => a.start - b.start)) {
      // What stands inside of something that is taken out goes with it.
      if (start < done) {
        done = Math.max(done, end);
        continue;
      }
      parts.push(text.slice(done, start));
      done = end;
    }
    seen = parts.join("") + text.slice(done);
  }
  const drop = (whole: string, url: string): string => (isCarryingOut(url) ? "" : whole);
  return withoutInvisible(seen.replaceAll(image, drop));
}
