/** `policy suggest`: what a running proxy has refused, and the smallest addition to its policy that would allow it. */
import { text as readAll } from "node:stream/consumers";
import { z } from "zod";
import type { Config } from "../../config/presets.ts";
import { messageOf, ProxyError } from "../../errors.ts";
import { textOfGiven } from "../../files/given-file.ts";
import type { DenialSummary } from "../../policy/aggregate.ts";
import { suggest } from "../../policy/suggest.ts";
import { suggestionText } from "../../policy/suggestion-text.ts";
import { policyKeys } from "../../plugins/egress-policy/source.ts";
import { commandFile, type FileCommand, refuseCommand } from "../config-file.ts";
import { askSessionApi, sessionApiOf } from "../session-api.ts";
import { printableJson } from "../event-line.ts";

const place = { host: z.string(), port: z.number() };
const said = { code: z.string(), entry: z.string().optional(), rule: z.string().optional() };

/** The response of `GET /v1/policy/denials`. */
const responseSchema = z.object({
  instances: z.array(
    z.object({
      plugin: z.string(),
      observed: z.object({
        denials: z.array(
          z.object({
            ...place,
            ...said,
            binary: z.string(),
            count: z.number(),
            firstSeen: z.number(),
            lastSeen: z.number(),
            samples: z.array(
              z.object({
                ...said,
                method: z.string(),
                path: z.string(),
                protocol: z.string().optional(),
              }),
            ),
          }),
        ),
      }),
    }),
  ),
});

interface PolicySuggestCommand extends FileCommand {
  /** A saved response of the session API, `-` for stdin; the running process is asked when absent. */
  readonly from?: string;
  readonly json: boolean;
}

/** Prints the addition; 0, also when there is nothing to add. */
export async function suggestPolicy(command: PolicySuggestCommand): Promise<number> {
  try {
    const loaded = await commandFile(command, { allowUnset: true });
    if (loaded === undefined) return 2;
    const { config } = loaded;
    const saved = "save the answer of /v1/policy/denials and use --from";
    const response = await (command.from === undefined
      ? askSessionApi(sessionApiOf(config, saved), "/v1/policy/denials")
      : readSaved(command.from));
    const suggestion = suggest(denialsOf(response, command.from), keysOf(config));
    const text = command.json ? `${printableJson(suggestion, 2)}\n` : suggestionText(suggestion);
    process.stdout.write(text);
    return 0;
  } catch (error) {
    return refuseCommand(error);
  }
}

function denialsOf(text: string, from = "the answer"): readonly DenialSummary[] {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ProxyError("config.invalid", `${from} is no JSON: ${messageOf(error)}`);
  }
  const parsed = responseSchema.safeParse(value);
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const where = issue?.path.join(".") ?? "";
    throw new ProxyError(
      "config.invalid",
      `${from} is no answer of /v1/policy/denials: ${where} ${issue?.message ?? ""}`,
    );
  }
  // Codes and protocols are defined by this program; an unknown one is reported and never suggested.
  return parsed.data.instances.flatMap(({ observed }) => observed.denials as DenialSummary[]);
}

/** Keys that the policy has already, so that a new entry gets another one. */
function keysOf(config: Config): readonly string[] {
  return config.pipeline.outbound.plugins
    .filter(({ name }) => name === "egress-policy")
    .flatMap(({ config: settings }) => policyKeys(settings));
}

const maxSavedBytes = 64 * 1_048_576;

function readSaved(from: string): Promise<string> {
  return from === "-" ? readAll(process.stdin) : textOfGiven(from, maxSavedBytes);
}
