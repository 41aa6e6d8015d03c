/** One addition to the policy for several refusals that somebody chose. */
import type { DenialSummary } from "../../policy/aggregate.ts";
import { suggest } from "../../policy/suggest.ts";
import { suggestionText } from "../../policy/suggestion-text.ts";
import { policyFileOf, policyKeys } from "./source.ts";

/** What an instance has observed, as `observations()` gives it. */
interface Observed {
  readonly denials?: readonly DenialSummary[];
}

/** The addition in the format of policy files; `file` is where the policy is kept, where it is a file of its own. */
export function additionFor(
  observed: readonly unknown[],
  settings: readonly unknown[],
  chosen: ReadonlySet<string>,
): { readonly text: string; readonly file?: string | undefined } {
  const denials = observed.flatMap((one) => (one as Observed).denials ?? []);
  const wanted = denials.filter((one) => chosen.has(denialName(one)));
  const [file] = settings.flatMap(policyFileOf);
  return { text: suggestionText(suggest(wanted, settings.flatMap(policyKeys))), file };
}

/** How a refusal is named in a question. */
function denialName({ host, port, binary }: DenialSummary): string {
  return `${host}:${port} ${binary}`;
}
