/** The probes of `:9091`. They show no user data and never ask for a secret. */
import { text, type AdminReply, type AdminRoute } from "./server.ts";

/** What the probes ask. */
export interface HealthSources {
  /** Why the process should get no traffic, e.g. `inbound plugin not ready: jwt-validation`; nothing when it should. */
  readiness(): string | undefined;
  /** Resolves when the other two say what is so now; absent where they always do. */
  readonly refresh?: (() => Promise<void>) | undefined;
  /** What is worth a line although the process is ready. */
  note?(): string | undefined;
}

/** Routes of the health server; an own reason for not being ready reads like the plugins' ones. */
export function healthRoutes(sources: HealthSources): readonly AdminRoute[] {
  const { refresh } = sources;
  const ready = (): AdminReply => {
    const reason = sources.readiness();
    if (reason !== undefined) return text(`${reason}\n`, 503);
    const note = sources.note?.();
    return text(note === undefined ? "" : `${note}\n`);
  };
  return [
    { path: "/healthz", isOpen: true, handle: () => text("") },
    { path: "/livez", isOpen: true, handle: () => text("") },
    {
      path: "/readyz",
      isOpen: true,
      handle: refresh === undefined ? ready : () => refresh().then(ready),
    },
  ];
}
