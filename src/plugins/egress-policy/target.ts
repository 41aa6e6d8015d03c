/** What a request's target is to the rules: its readings, or why it has none. */
import { canonicalTarget } from "../../http/canonical-target.ts";
import type { RequestContext } from "../../pipeline/plugin.ts";
import type { InspectionNeeds } from "../../policy/combined-policy.ts";
import type { Spelling } from "../../policy/spelling.ts";

/** What rules are asked about, or why there is nothing; the path as it came where no rule is about requests. */
export function targetOf(
  { path, pathname }: RequestContext,
  { judgesRequests }: Pick<InspectionNeeds, "judgesRequests">,
):
  | { readonly kind: "target"; readonly spelling: Spelling; readonly query: string }
  | { readonly kind: "refused"; readonly reason: string } {
  if (!judgesRequests)
    return { kind: "target", spelling: asSpelt(pathname), query: path.slice(pathname.length) };
  // Whether an encoded slash may be there is for the endpoint to say.
  const target = canonicalTarget(path, { allowEncodedSlash: true });
  return target.kind === "fault"
    ? { kind: "refused", reason: `the path cannot be judged: ${target.fault}` }
    : { kind: "target", spelling: target, query: target.query };
}

/** A path that nothing is asked about. */
export function asSpelt(pathname: string): Spelling {
  return { readings: [pathname] };
}
