/** The token that a message's bearer is, or stands for as a placeholder. */
import {
  type Decision,
  deny,
  type PluginDeps,
  type RequestContext,
} from "../../pipeline/plugin.ts";
import { Secret } from "../../secret.ts";
import { placeholderPrefix } from "./placeholder.ts";
import type { Placeholders } from "./shared-placeholders.ts";

type Answer = Decision | Promise<Decision>;

const unresolved = deny("placeholder_unresolved", {
  code: "auth.unauthorized",
  message: "unresolvable credential placeholder",
});
const unreadable = deny("placeholder_unknown", {
  code: "state.unavailable",
  message: "it cannot be seen what the placeholder stands for: the state store is not available",
  unavailable: true,
});
const stored = deny("stored_credential", {
  code: "policy.forbidden",
  message:
    "static-inject has attached a stored credential, which is not shown to others as a token: let the host pass in routes (passthrough), or leave it out of static-inject (hosts)",
});

/** Goes on with the token; without `placeholders` every bearer is one. */
export function withSubject(
  token: string,
  {
    context,
    placeholders,
    deps,
  }: {
    readonly context: RequestContext;
    readonly placeholders: Placeholders | undefined;
    readonly deps: PluginDeps;
  },
  next: (subject: Secret) => Answer,
): Answer {
  if (context.isStored(token)) return stored;
  if (placeholders === undefined || !token.startsWith(placeholderPrefix)) {
    return next(new Secret(token, "caller"));
  }
  const follow = (subject: Secret | undefined): Answer =>
    subject === undefined ? unresolved : next(subject);
  const away = (): Decision => {
    deps.count("state_away");
    return unreadable;
  };
  try {
    const found = placeholders.resolve(token);
    return found instanceof Promise ? unlessAway(found, follow, away) : follow(found);
  } catch {
    return away();
  }
}

async function unlessAway<T>(
  found: Promise<T>,
  follow: (value: T) => Answer,
  away: () => Decision,
): Promise<Decision> {
  let value: T;
  try {
    value = await found;
  } catch {
    return away();
  }
  return follow(value);
}
