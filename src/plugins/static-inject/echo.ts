/** A credential that went out in a URL: servers repeat URLs in redirects and error pages, where the agent would read it. */
import type { HeaderList } from "../../http/headers.ts";
import { Secret } from "../../secret.ts";

/** Puts the stand-in back wherever a response repeats the credential. */
export class Echo {
  readonly #spellings: readonly Secret[];
  readonly #standIn: string;

  constructor(credential: string, standIn: string) {
    const html = credential.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
    const named = credential
      .replace(/&/g, "&amp;")
      .replace(/</g, "&lt;")
      .replace(/>/g, "&gt;")
      .replace(/"/g, "&quot;");
    const json = JSON.stringify(credential).slice(1, -1);
    const all = [credential, encodeURIComponent(credential), html, named, json];
    this.#spellings = [...new Set([...all, encodeURI(credential), json.replace(/\//g, "\\/")])]
      // A longer spelling may hold a shorter one.
      .toSorted((a, b) => b.length - a.length)
      .map((spelling) => new Secret(spelling, "caller"));
    this.#standIn = standIn;
  }

  /** The text without the credential; the same text where it has none. */
  clean(text: string): string {
    let cleaned = text;
    for (const spelling of this.#spellings)
      cleaned = cleaned.replaceAll(spelling.reveal(), () => this.#standIn);
    return cleaned;
  }

  /** Undefined where there is nothing to change. */
  cleanBytes(bytes: Buffer): Buffer | undefined {
    if (!this.#spellings.some((spelling) => bytes.includes(spelling.reveal()))) return undefined;
    return Buffer.from(this.clean(bytes.toString("latin1")), "latin1");
  }

  /** Whether a field had to be changed. */
  cleanFields(headers: HeaderList): boolean {
    const named = [...headers.entries()].filter(([, value]) => this.clean(value) !== value);
    for (const name of new Set(named.map(([field]) => field.toLowerCase()))) {
      const values = headers.getAll(name);
      headers.delete(name);
      for (const value of values) headers.append(name, this.clean(value));
    }
    return named.length > 0;
  }
}
