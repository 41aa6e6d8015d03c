/** Where identity providers say that a login has ended (OpenID Connect Back-Channel Logout 1.0, section 2.5). */
import { failure, json, type AdminReply, type AdminRoute } from "./server.ts";

/** What became of a logout token. */
export type LogoutOutcome =
  | { readonly kind: "accepted" | "off" }
  | { readonly kind: "refused"; readonly cause: string }
  | { readonly kind: "unavailable"; readonly reason: string };

/** The route; `logout` is asked with the token. */
export function logoutRoutes(logout: (token: string) => Promise<LogoutOutcome>): AdminRoute[] {
  return [
    {
      path: "/backchannel-logout",
      takesForm: true,
      // The provider has no secret of ours: the token is signed.
      isOpen: true,
      handle: async ({ form }) => {
        const [token, ...more] = form?.getAll("logout_token") ?? [];
        if (token === undefined || token === "" || more.length > 0)
          return invalid("no_logout_token");
        const outcome = await logout(token);
        switch (outcome.kind) {
          case "accepted":
            return { status: 200, contentType: "text/plain; charset=utf-8", body: "" };
          case "off":
            return failure(
              404,
              "request.not-found",
              "no plugin takes logouts (backchannel_logout)",
            );
          case "refused":
            return invalid(outcome.cause);
          case "unavailable":
            return json(
              { error: "temporarily_unavailable", error_description: outcome.reason },
              503,
            );
        }
      },
    },
  ];
}

/** The words of section 2.8. */
function invalid(cause: string): AdminReply {
  return json({ error: "invalid_request", error_description: cause }, 400);
}
