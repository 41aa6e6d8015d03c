/** The command by which operators decide. */
import { command } from "./command.ts";
import * as takes from "./parameter.ts";

/** Where a running proxy is asked. */
export const sessionApiUrl = takes.value(
  "--url URL  the session API (default: from the file, else http://127.0.0.1:9094)",
  (url) =>
    /^https?:\/\/[^/\s@?#]+\/?$/.test(url) && URL.canParse(url)
      ? url
      : takes.misuse("--url must be a URL such as http://127.0.0.1:9094"),
);

/** `approve`. */
export const approveRow = command({
  usage: {
    "approve [list | ID allow | ID deny] [--config FILE | --url URL] [options]":
      "what waits for an approval in a running proxy, and deciding",
  },
  parameters: {
    words: takes.optionalWords,
    file: takes.text("--config FILE  the configuration file"),
    lenient: takes.flag(
      "--lenient  unknown keys are warnings, for files written for the Go authbridge-proxy",
    ),
    url: sessionApiUrl,
    scope: takes.choice(
      "--scope SCOPE  once (default), session, duration, or policy (once, and print its lines)",
      ["once", "session", "duration", "policy"],
    ),
    duration: takes.text("--duration DURATION  how long the decision holds, such as 15m"),
    reason: takes.text("--reason TEXT  why, for the records"),
    secretFile: takes.text(
      "--secret-file FILE  the operator's secret (default: session.api_secret_file of the file)",
    ),
    json: takes.flag("--json  JSON instead of text"),
  },
  objection: ({ words = [] }) =>
    words.length === 0 ||
    (words.length === 1 && words[0] === "list") ||
    (words.length === 2 && words[0] !== "" && ["allow", "deny"].includes(words[1] ?? ""))
      ? undefined
      : "approve takes list, or an ID with allow or deny",
  load: async () => (await import("../approve/approve.ts")).approve,
});
