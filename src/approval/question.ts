/** A question as everybody hears of it. */
import type { Question } from "./desk-options.ts";
import type { Ask } from "./told.ts";
import { shownText } from "./visible.ts";

const maxWhy = 1_024;
const maxSuggestion = 4_096;

/** Open from now on. */
export function questionOf(
  { digest, request, plugin, rule, reason, suggestion, session, gate }: Omit<Question, "context">,
  { id, expiresMs, asker }: Pick<Ask, "id" | "asker"> & { readonly expiresMs: number },
): Ask {
  const at = Date.now();
  return {
    id,
    digest,
    at,
    expiresAt: at + expiresMs,
    request: request.shown,
    plugin,
    rule,
    why: shownText(reason, maxWhy),
    suggestion: suggestion?.slice(0, maxSuggestion),
    session,
    rules: gate.rules,
    asker,
  };
}
