/** What hides an element: its attributes, its own style, or a class of a style sheet in the page. */

interface Said {
  readonly name: string;
  readonly value: string;
}

const hiding: readonly RegExp[] = [
  /display\s{0,4}:\s{0,4}none/,
  /visibility\s{0,4}:\s{0,4}(?:hidden|collapse)/,
  /(?:^|[;{\s])opacity\s{0,4}:\s{0,4}0?(?:\.0\d{0,3})?(?:%|\s{0,4}(?:[;!}]|$))/,
  /font(?:-size)?\s{0,4}:\s{0,4}(?:0|0?\.\d{1,4}|1)(?:px|pt|em|rem|%|vw|vh)?\s{0,4}(?:[;!}/]|$)/,
  /text-indent\s{0,4}:\s{0,4}-\d{3}/,
  /(?:left|top|right|bottom|margin-left|margin-top)\s{0,4}:\s{0,4}-\d{3}/,
  /translate[xy]?\([^)]{0,40}-\d{3}/,
  /scale\(\s{0,4}0/,
  /clip\s{0,4}:\s{0,4}rect\(\s{0,4}[01](?:px)?[\s,]/,
  /clip-path\s{0,4}:\s{0,4}(?:inset\(\s{0,4}(?:50|100)%|circle\(\s{0,4}0)/,
  /(?:^|[;{\s])(?:max-)?(?:height|width)\s{0,4}:\s{0,4}[01](?:px)?\s{0,4}(?:[;!}]|$)/,
  /(?:^|[;{\s])color\s{0,4}:\s{0,4}(?:transparent|rgba\([^)]{1,40},\s{0,4}0(?:\.0{0,4}\d?)?\s{0,4}\)|#[0-9a-f]{3}0(?![0-9a-f])|#[0-9a-f]{6}00)/,
  /z-index\s{0,4}:\s{0,4}-\d/,
  /content-visibility\s{0,4}:\s{0,4}hidden/,
  /filter\s{0,4}:\s{0,4}opacity\(\s{0,4}0/,
];
const ownColour = /(?:^|[;{\s])color\s{0,4}:\s{0,4}([^;}!]{1,40})/;
const backColour = /background(?:-color)?\s{0,4}:\s{0,4}([^;}!]{1,40})/;

/** The style hides what it is said of. */
export function hides(style: string): boolean {
  const text = style.toLowerCase();
  if (hiding.some((pattern) => pattern.test(text))) return true;
  const colour = colourOf(ownColour.exec(text)?.[1]);
  if (colour === undefined) return false;
  const back = colourOf(backColour.exec(text)?.[1]);
  // Where nothing is said of what stands behind it, a page is white.
  return back === undefined ? colour === "ffffff" : back === colour;
}

/** One spelling for the colours that are said in several. */
function colourOf(said: string | undefined): string | undefined {
  if (said === undefined) return undefined;
  const text = said.trim();
  const named: Readonly<Record<string, string>> = {
    white: "ffffff",
    snow: "ffffff",
    black: "000000",
  };
  const short = /^#([0-9a-f])([0-9a-f])([0-9a-f])$/.exec(text);
  if (short !== null)
    return short
      .slice(1)
      .map((digit) => digit + digit)
      .join("");
  const rgb = /^rgba?\(\s{0,4}(\d{1,3})[\s,]{1,6}(\d{1,3})[\s,]{1,6}(\d{1,3})/.exec(text);
  if (rgb !== null) {
    const digits = rgb
      .slice(1)
      .map((part) => Number(part).toString(16).padStart(2, "0"))
      .join("");
    return nearWhite(digits);
  }
  return nearWhite(/^#([0-9a-f]{6})/.exec(text)?.[1] ?? named[text] ?? text);
}

function nearWhite(colour: string): string {
  return /^(?:f[0-9a-f]){3}$/.test(colour) && !/f[0-9]/.test(colour) ? "ffffff" : colour;
}

/** Classes and ids that the sheets of a page hide. */
export class HiddenClasses {
  readonly #names = new Set<string>();

  /** The innermost blocks count: a rule may stand in others, as in those of `@media`. */
  read(sheet: string): void {
    for (const block of sheet.split("}")) {
      const open = block.lastIndexOf("{");
      if (open === -1 || !hides(block.slice(open + 1))) continue;
      const selectors = block.slice(block.lastIndexOf("{", open - 1) + 1, open);
      for (const [name] of selectors.matchAll(/[.#][\w-]{1,64}/g)) this.#names.add(name);
    }
  }

  has(name: string): boolean {
    return this.#names.has(name);
  }
}

/** Whether nobody sees the element. */
export function isHiddenBy(
  element: string,
  attributes: readonly Said[],
  classes: HiddenClasses,
): boolean {
  if (element === "template") return true;
  return attributes.some(({ name, value }) => {
    switch (name) {
      case "hidden":
        return true;
      case "aria-hidden":
        return value.toLowerCase() === "true";
      case "style":
        return hides(value);
      case "class":
        return value.split(/\s+/).some((one) => classes.has(`.${one}`));
      case "id":
        return classes.has(`#${value}`);
      case "color":
        return element === "font" && colourOf(value.toLowerCase()) === "ffffff";
      case "width":
      case "height":
        return element !== "img" && element !== "iframe" && value === "0";
      default:
        return false;
    }
  });
}
