/** `completion`: a script with which a shell completes every command and option. */
import { bashScript } from "./bash.ts";
import { fishScript } from "./fish.ts";
import { type Listing, listingOf, type NamedCommand } from "./listing.ts";
import { zshScript } from "./zsh.ts";

const scripts = { bash: bashScript, zsh: zshScript, fish: fishScript } satisfies Record<
  string,
  (listing: Listing) => string
>;

/** The shells for which there is one. */
export type Shell = keyof typeof scripts;

/** The text of the script. */
export function completionScript(shell: Shell, rows: readonly NamedCommand[]): string {
  return scripts[shell](listingOf(rows));
}
