/** How an issued token goes into a request: as a bearer token, or with a proof of the key that it is bound to. */
import { type DpopKey, DpopKeys, type LearnedNonce } from "../../oauth/dpop-client.ts";
import { callerOf } from "../../pipeline/flow.ts";
import { OtherThreads } from "../../pipeline/other-threads.ts";
import type { PluginDeps, RequestContext } from "../../pipeline/plugin.ts";
import type { Secret } from "../../secret.ts";
import { attachBearer } from "../credentials/bearer.ts";

/** Whose key tokens are bound to. */
export const dpopChoices = ["off", "process", "caller"] as const;

/** One of {@link dpopChoices}. */
export type DpopChoice = (typeof dpopChoices)[number];

const scheme = /(?:^|[\s,])dpop(?=[ \t])/i;
const nonceWanted = /[\s,]error[ \t]*=[ \t]*"?use_dpop_nonce\b/i;

/** The keys of the process: all of its threads have the same ones, and tell each other what servers asked for. */
export function dpopKeys({ clock, secret, isAlone, shared }: PluginDeps): DpopKeys {
  const options = { clock, seed: secret("dpop keys") };
  if (isAlone) return new DpopKeys(options);
  return new DpopKeys({
    ...options,
    share: (hear) => {
      const others = new OtherThreads(shared, "dpop nonces", (text) =>
        hear(JSON.parse(text) as LearnedNonce),
      );
      return {
        tell: (learned) => void others.say(JSON.stringify(learned)),
        close: () => others.close(),
      };
    },
  });
}

/** The key that the token of a message is to be bound to. */
export function keyOf(
  keys: DpopKeys,
  { flow }: RequestContext,
  choice: DpopChoice,
): DpopKey | undefined {
  if (choice === "off") return undefined;
  return choice === "caller" ? keys.of(callerOf(flow.client)) : keys.shared();
}

/** The token takes the place of the client's credential. */
export function attachToken(
  context: RequestContext,
  token: Secret,
  dpop: DpopKey | undefined,
): void | Promise<void> {
  return dpop === undefined
    ? attachBearer(context.headers, token)
    : attachBound(context, token, dpop);
}

async function attachBound(context: RequestContext, token: Secret, dpop: DpopKey): Promise<void> {
  const { destination, method } = context;
  const url = destination.origin + context.sentPath;
  const prove = (): Promise<string> => dpop.proof({ method, url, accessToken: token.reveal() });
  const proof = await prove();
  context.headers.set("Authorization", `DPoP ${token.reveal()}`);
  context.headers.set("DPoP", proof);
  context.credential = {
    answered: (status, field) => {
      const isGiven = dpop.learn(url, field("dpop-nonce"));
      const isAsked = status === 401 && asksForNonce(field("www-authenticate") ?? "");
      return isGiven && isAsked ? async () => [["DPoP", await prove()]] : undefined;
    },
  };
}

/** RFC 9449 section 9. The field is the origin's: one expression for all of it would take time with its length squared. */
function asksForNonce(challenge: string): boolean {
  const found = scheme.exec(challenge);
  return found !== null && nonceWanted.test(challenge.slice(found.index + found[0].length));
}
