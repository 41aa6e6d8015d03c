/** Paths of a policy that are symbolic links, as the caller sees its files. */
import { readlink } from "node:fs/promises";
import { join } from "node:path";

const maxLinkHops = 40;
const maxRemembered = 4096;

/** What one place in a file system is: where a link leads, something that is no link, or nothing that can be read. */
type Place =
  | { readonly kind: "link"; readonly to: string }
  | { readonly kind: "file" }
  | { readonly kind: "nothing" };

/** Follows the links of policies; one per process, as it remembers where they led. */
export class PolicyLinks {
  readonly #root: string;
  readonly #remembered = new Map<string, string>();

  /** `root` is `/proc`, or a copy of its shape. */
  constructor(root: string) {
    this.#root = root;
  }

  /** Which of the asked paths lead to one of the files, as the process sees its root. */
  async leadingTo(
    files: ReadonlySet<string>,
    pid: number,
    links: readonly string[],
  ): Promise<readonly string[]> {
    if (links.length === 0) return [];
    // Containers of one pod share processes, not files.
    const view = await readlink(`${this.#root}/${pid}/ns/mnt`).catch(() => "");
    const places = new Places(`${this.#root}/${pid}/root`);
    const aliases: string[] = [];
    for (const path of links) {
      if (files.has(path)) continue;
      const key = `${view}\0${path}`;
      const remembered = this.#remembered.get(key);
      const final = remembered ?? (await places.endOf(path));
      if (final === undefined) continue;
      // Kept for good: a link that is pointed elsewhere later does not carry the policy along.
      if (remembered === undefined && this.#remembered.size < maxRemembered) {
        this.#remembered.set(key, final);
      }
      if (files.has(final)) aliases.push(path);
    }
    return aliases;
  }
}

/** One look at the files below a root; folders that several paths have in common are read once. */
class Places {
  readonly #root: string;
  readonly #seen = new Map<string, Place>();

  constructor(root: string) {
    this.#root = root;
  }

  /** Resolves every symbolic link of a path without leaving the root; undefined when it leads nowhere. */
  async endOf(path: string): Promise<string | undefined> {
    let rest = path.split("/").filter(Boolean);
    let done = "/";
    for (let hops = 0; ;) {
      const [name, ...others] = rest;
      if (name === undefined) return done;
      rest = others;
      const here = join(done, name);
      const place = name === "." || name === ".." ? isFile : await this.#at(here);
      if (place.kind === "nothing") return undefined;
      if (place.kind === "file") done = here;
      else {
        hops += 1;
        if (hops > maxLinkHops) return undefined;
        rest = [...place.to.split("/").filter(Boolean), ...rest];
        if (place.to.startsWith("/")) done = "/";
      }
    }
  }

  async #at(here: string): Promise<Place> {
    const seen = this.#seen.get(here);
    if (seen !== undefined) return seen;
    const place = await readlink(this.#root + here).then(
      (to): Place => ({ kind: "link", to }),
      // EINVAL: it is there and no link.
      (error: NodeJS.ErrnoException) => (error.code === "EINVAL" ? isFile : isNothing),
    );
    this.#seen.set(here, place);
    return place;
  }
}

const isFile: Place = { kind: "file" };
const isNothing: Place = { kind: "nothing" };
