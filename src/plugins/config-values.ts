/** The kinds of value that plugin configurations share. */
import { z } from "zod";
import { durationPattern, durationText, longestTimerMs, parseDuration } from "../duration.ts";
import { compileHostGlob } from "../pattern/host-pattern.ts";
import { compileBypassPaths, compilePathGlob } from "../pattern/path-pattern.ts";
import { messageOf } from "../errors.ts";

/** An http or https address of a service that the operator runs. */
export function serviceUrl(): z.ZodString {
  return z
    .string()
    .regex(/^https?:\/\/[^\s]+$/, {
      error: "must be an http:// or https:// address",
      abort: true,
    })
    .refine((text) => URL.canParse(text), { error: "is not a valid address" });
}

/** A text that holds more than white space. */
export function words(): z.ZodString {
  return z.string().regex(/\S/, { error: "must not be blank" });
}

/** A Go duration of at least `minMs` and at most `maxMs`: what somebody may wait for. */
export function duration(minMs = 1, maxMs = longestTimerMs): z.ZodString {
  return z
    .string()
    .regex(durationPattern, {
      error: 'must be a duration such as "250ms", "30s" or "1h30m"',
      abort: true,
    })
    .refine((text) => (parseDuration(text) ?? -1) >= minMs, {
      error: `must be at least ${durationText(minMs)}`,
    })
    .refine((text) => (parseDuration(text) ?? 0) <= maxMs, {
      error: `must be at most ${durationText(maxMs)}`,
    });
}

/** A duration that times are compared with: no timer goes that long, and it may be more than one can hold. */
export function age(minMs = 1): z.ZodString {
  return duration(minMs, hundredYearsMs);
}

const hundredYearsMs = 876_000 * 3_600_000;

/** How many actors a token may name; a longer chain than 64 is not read. */
export function maxActors(): z.ZodDefault<z.ZodInt> {
  return z.int().min(1).max(64).default(8);
}

/** A glob over host names, with `.` as the separator. */
export function hostGlob(): z.ZodString {
  return z.string().superRefine((pattern, context) => {
    try {
      compileHostGlob(pattern);
    } catch (error) {
      context.addIssue({ code: "custom", message: messageOf(error) });
    }
  });
}

/** A glob over names of tools. An empty one would select no tool at all. */
export function toolGlob(): z.ZodString {
  return words().superRefine((pattern, context) => {
    try {
      compilePathGlob(pattern);
    } catch (error) {
      context.addIssue({ code: "custom", message: messageOf(error) });
    }
  });
}

/** The origin of an address that {@link serviceUrl} accepted. */
export function originOf(url: string): string {
  return new URL(url).origin;
}

/** The first DNS label of a host with or without a port; undefined for an address or for nothing. */
export function firstLabel(host: string): string | undefined {
  const name = host.replace(/:\d*$/, "");
  if (name.startsWith("[") || name.includes(":") || /^[\d.]+$/.test(name)) return undefined;
  const label = name.split(".", 1)[0]?.toLowerCase();
  return label === "" ? undefined : label;
}

/** Infrastructure whose calls carry nobody's intent, as in the Go program. */
export const defaultBypassHosts = [
  "keycloak.*",
  "keycloak",
  "spire-server.*",
  "spire-agent.*",
  "otel-collector.*",
  "jaeger.*",
  "prometheus.*",
];

const defaultBypassPaths = ["/healthz", "/readyz", "/livez", "/.well-known/*"];

/** In these lists a star crosses dots, as the Go program has it: `keycloak.*` is also `keycloak.auth.svc`. */
export function bypassHostGlob(pattern: string): string {
  return pattern.trim().replace(/\*+/g, "**");
}

const bypassHost = z.string().superRefine((pattern, context) => {
  const issue = (message: string): void => context.addIssue({ code: "custom", message });
  if (/^[*.?\s]*$/.test(pattern)) {
    issue("would bypass every host; to switch the plugin off, set on_error: off on its entry");
    return;
  }
  try {
    compileHostGlob(bypassHostGlob(pattern));
  } catch (error) {
    issue(messageOf(error));
  }
});

const bypassPath = z.string().superRefine((pattern, context) => {
  try {
    compileBypassPaths([pattern]);
  } catch (error) {
    context.addIssue({ code: "custom", message: messageOf(error) });
  }
});

/** Destinations that a judge of actions leaves alone, or nothing for {@link defaultBypassHosts}. */
export function bypassHosts(): z.ZodOptional<z.ZodArray<typeof bypassHost>> {
  return z.array(bypassHost).max(1_000).optional();
}

/** Paths that a judge of actions leaves alone. */
export function bypassPaths(): z.ZodDefault<z.ZodArray<typeof bypassPath>> {
  return z.array(bypassPath).max(1_000).default(defaultBypassPaths);
}

/** A number that is `preset` where it is absent, or 0: the Go program takes 0 for a number that is not set. */
export function orDefault(schema: z.ZodNumber, preset: number) {
  return z
    .union([schema, z.literal(0)])
    .default(preset)
    .transform((value) => (value === 0 ? preset : value));
}
