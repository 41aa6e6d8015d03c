/**
 * How this system looks names up, as far as its own files say it: /etc/hosts, and the search list of /etc/resolv.conf.
 *
 * getaddrinfo does the same and cannot be cancelled: it holds one of the four threads of the process until the last of
 * its servers has been waited for (nsswitch.conf(5), resolv.conf(5)).
 */
import { readFileSync } from "node:fs";
import { parseAddress } from "./address.ts";

/** Where the files are; tests have their own. */
const systemFiles = {
  hosts: "/etc/hosts",
  resolv: "/etc/resolv.conf",
  nsswitch: "/etc/nsswitch.conf",
};

/** The files are read again after this time. */
const ttlMs = 5_000;
const maxNdots = 15;
const maxSuffixes = 16;

interface Known {
  readonly hosts: ReadonlyMap<string, readonly string[]>;
  readonly suffixes: readonly string[];
  readonly ndots: number;
  readonly isPlain: boolean;
}

/** Reads the files when they are asked for. */
export class SystemNames {
  readonly #files: typeof systemFiles;
  #known: Known | undefined;
  #readAt = 0;

  constructor(files: typeof systemFiles = systemFiles) {
    this.#files = files;
  }

  /** Whether files and DNS are all that this system asks. */
  get isPlain(): boolean {
    return this.#read().isPlain;
  }

  /** The addresses that /etc/hosts gives a name. */
  addressesOf(name: string): readonly string[] | undefined {
    return this.#read().hosts.get(name);
  }

  /** The names that servers are asked for in turn. */
  candidatesOf(name: string): readonly string[] {
    const { suffixes, ndots } = this.#read();
    const searched = suffixes.map((suffix) => `${name}.${suffix}`);
    const dots = name.split(".").length - 1;
    return dots >= ndots ? [name, ...searched] : [...searched, name];
  }

  #read(): Known {
    const now = performance.now();
    if (this.#known === undefined || now - this.#readAt > ttlMs) {
      const { hosts, resolv, nsswitch } = this.#files;
      this.#known = {
        hosts: hostsOf(textOf(hosts)),
        ...searchOf(textOf(resolv)),
        isPlain: process.platform === "linux" && isPlain(textOf(nsswitch)),
      };
      this.#readAt = now;
    }
    return this.#known;
  }
}

function textOf(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}

function wordsOf(text: string, comment: RegExp): string[][] {
  return text
    .split("\n")
    .map((line) => line.replace(comment, "").trim())
    .filter((line) => line !== "")
    .map((line) => line.split(/\s+/));
}

function hostsOf(text: string): Known["hosts"] {
  const hosts = new Map<string, string[]>();
  for (const [address = "", ...names] of wordsOf(text, /#.*/)) {
    if (parseAddress(address) === undefined) continue;
    for (const name of names.map((word) => word.toLowerCase()))
      hosts.set(name, [...(hosts.get(name) ?? []), address]);
  }
  return hosts;
}

function searchOf(text: string): Pick<Known, "suffixes" | "ndots"> {
  let suffixes: string[] = [];
  let ndots = 1;
  for (const [keyword, ...words] of wordsOf(text, /^\s*[#;].*/)) {
    if (keyword === "search" || keyword === "domain") {
      suffixes = words
        .map((word) => word.toLowerCase().replace(/\.$/, ""))
        .filter((word) => word !== "")
        .slice(0, maxSuffixes);
    }
    if (keyword !== "options") continue;
    for (const word of words) {
      const count = /^ndots:(\d+)$/.exec(word)?.[1];
      if (count !== undefined) ndots = Math.min(Number(count), maxNdots);
    }
  }
  return { suffixes, ndots };
}

/** True where the file is not there, as with musl, which knows nothing else. */
function isPlain(text: string): boolean {
  const line = wordsOf(text, /#.*/).find(([database]) => database === "hosts:");
  return line === undefined || line.slice(1).every((source) => /^(?:files|dns)$/.test(source));
}
