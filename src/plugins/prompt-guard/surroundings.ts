/** Where a phrase stands: in a quotation, in code, in a list, or in a text about attacks on models. */

/** Words of texts that are about attacks on models. */
const subject =
  /prompt[\s-]{0,3}(?:inject|guard|attack|leak|hijack|security)|inject(?:ed|ion)|instructs?\s(?:the|its|a|any)\s(?:language\s)?model|jailbreak|prompt-?injektion|injection\s(?:de\s)?(?:prompt|d.invite)|inyecci[oó]n\sde\s(?:prompt|instruc)|提示词?注入|プロンプトインジェクション|프롬프트\s?인젝션|промпт-?инъекц|инъекци[ия]\sпромпт|chat\stemplate|special\stokens?|tokenizer/giu;
const discourse =
  /adversar|red[\s-]team|attacker|malicious|untrusted|exfiltrat|owasp|vulnerab|mitigat|guardrail|saniti[sz]|research|payload|threat|spotlight|defen[cs]e|example|detect|benchmark|paper|security|angriff|schutz|ataque|seguridad|attaque|sécurité|攻击|攻撃|공격|атак/giu;
const quotes = /["“”«»„‟‘「」『』`]/g;
const lookBackChars = 400;
const maxDiscourse = 400_000;

/** What of a text counts less. */
export class Surroundings {
  readonly #text: string;
  readonly #isHidden: boolean;
  /** Read when something was found: most texts have nothing. */
  #isAbout: boolean | undefined;
  /** Where fences of code begin and end. */
  #fences: readonly number[] | undefined;

  constructor(text: string, isHidden: boolean) {
    this.#text = text;
    this.#isHidden = isHidden;
  }

  /** How much of its score a phrase at this place keeps. */
  factorAt(at: number): number {
    if (this.#isHidden) return 1;
    const isQuoted = this.#isQuoted(at);
    this.#isAbout ??= isAbout(this.#text);
    if (this.#isAbout) return isQuoted || this.#isListed(at) ? 0.2 : 0.5;
    return isQuoted ? 0.6 : 1;
  }

  #isQuoted(at: number): boolean {
    if (this.#isFenced(at)) return true;
    const line = this.#lineBefore(at);
    if (/^\s*>/.test(line) || /^(?: {4}|\t)/.test(line)) return true;
    const marks = line.match(quotes);
    if (marks === null) return false;
    const last = marks.at(-1) ?? "";
    if ("“«„「『‘".includes(last)) return true;
    if ("”»」』".includes(last)) return false;
    return marks.filter((mark) => mark === last).length % 2 === 1;
  }

  #isListed(at: number): boolean {
    return /^\s{0,8}(?:[-*+•·|#]|\d{1,3}[.)])/.test(this.#lineBefore(at));
  }

  #lineBefore(at: number): string {
    const back = this.#text.slice(Math.max(0, at - lookBackChars), at);
    return back.slice(back.lastIndexOf("\n") + 1);
  }

  #isFenced(at: number): boolean {
    this.#fences ??= fencesOf(this.#text);
    let low = 0;
    let high = this.#fences.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if ((this.#fences[middle] ?? 0) < at) low = middle + 1;
      else high = middle;
    }
    // A fence that is never closed encloses nothing.
    return low % 2 === 1 && low < this.#fences.length;
  }
}

function isAbout(text: string): boolean {
  const part = text.slice(0, maxDiscourse);
  if (part.match(subject) === null) return false;
  return new Set(part.match(discourse)?.map((word) => word.toLowerCase())).size >= 2;
}

function fencesOf(text: string): readonly number[] {
  const found: number[] = [];
  for (let at = text.indexOf("```"); at !== -1; at = text.indexOf("```", at + 3)) found.push(at);
  return found;
}
