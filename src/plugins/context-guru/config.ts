/** The configuration of context-guru, with the keys of the Go program and those added since. */
import { z } from "zod";
import { durationMs } from "../../duration.ts";
import type { ConfigProblem } from "../../pipeline/plugin.ts";
import { age, serviceUrl, words } from "../config-values.ts";
import type { Limits } from "./draft.ts";
import { secretValue } from "../credentials/secret-config.ts";

const presets = ["off", "safe", "balanced", "aggressive"] as const;
const whole = (least: number, most: number): z.ZodNumber => z.int().min(least).max(most);
const defaultMaxTokens = 4_096;
const defaultTimeoutMs = 150_000;

const modelSchema = z
  .strictObject({
    base_url: serviceUrl()
      .optional()
      .describe(
        "Base address of the model, which speaks the chat completions API of OpenAI at /v1/chat/completions.",
      ),
    model: words().optional().describe("Its name."),
    api_key: secretValue
      .optional()
      .describe("Bearer token for it: a text, or the source that it comes from, by its `type`."),
    api_key_file: words().optional().describe("File with the bearer token, read at every call."),
    max_tokens: whole(0, 100_000)
      .default(defaultMaxTokens)
      .transform((tokens) => (tokens === 0 ? defaultMaxTokens : tokens))
      .describe("Longest summary; 0: 4096."),
    timeout_ms: whole(0, 600_000)
      .default(defaultTimeoutMs)
      .transform((ms) => (ms === 0 ? defaultTimeoutMs : ms))
      .describe("Until a summary is there; then the rules count. 0: 150000."),
    max_concurrency: whole(1, 1_000)
      .default(8)
      .describe("Calls at a time; outputs beyond them are shortened by the rules."),
  })
  .superRefine(({ base_url: url, model, api_key: key, api_key_file: file }, context) => {
    const issue = (path: string, message: string): void =>
      context.addIssue({ code: "custom", path: [path], message });
    if (url !== undefined && model === undefined) issue("model", "has to be set with base_url");
    if (url === undefined && model !== undefined) issue("base_url", "has to be set with model");
    if (key !== undefined && file !== undefined)
      issue("api_key_file", "has no effect with api_key");
  });

/** The schema of `config` of a context-guru entry. */
export const contextGuruConfig = z.strictObject({
  paths: z
    .array(words().regex(/^\//, { error: "must begin with /" }))
    .max(1_000)
    .default([])
    .describe(
      "Ends of paths of the calls that are read. Default: every call of a language model that inference-parser reads.",
    ),
  engine: z
    .strictObject({
      preset: z
        .enum(presets)
        .default("balanced")
        .describe(
          "off: nothing. safe: only what says nothing (white space, colours). balanced: about 8,000 characters of an output. aggressive: about 3,000.",
        ),
    })
    .default({ preset: "balanced" })
    .describe("How much is left out."),
  model: modelSchema
    .optional()
    .describe(
      "Model that summarises what the rules would have to cut in the middle. Where it does not answer in time, the rules count.",
    ),
  min_chars: whole(256, 100_000_000)
    .default(2_048)
    .describe("Outputs of fewer characters are left alone. Default 2048."),
  keep_chars: whole(256, 100_000_000)
    .optional()
    .describe("About how many characters are kept of an output, in place of what the preset says."),
  without_session: z
    .enum(["skip", "caller"])
    .default("skip")
    .describe(
      "Calls that belong to no session and no user. skip: they are left alone. caller: they belong to their caller (agent, executable or address), who can then ask for what was left out. Default skip.",
    ),
  host: z
    .string()
    .regex(/^[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?$/, {
      error: "must be a host name, in lower case",
    })
    .default("context-guru.internal")
    .describe(
      "Host at which the agent asks for what was left out, with MCP at /mcp or GET /texts/ID; the proxy itself responds. Steps that stand before have to allow it.",
    ),
  store: z
    .strictObject({
      ttl: age(1_000)
        .default("1h")
        .describe("How long a text can be asked for after its last use. Default 1h."),
      max_bytes: whole(65_536, 10_000_000_000)
        .default(67_108_864)
        .describe("Of all texts, in memory; one session has at most a quarter. Default 64 MiB."),
      max_texts: whole(1, 100_000).default(1_000).describe("Texts of one session. Default 1000."),
    })
    .default({ ttl: "1h", max_bytes: 67_108_864, max_texts: 1_000 })
    .describe("Whole texts, for whoever asks."),
});

/** Keys that nothing reads, written or not. */
export function unusedKeysOf({ engine: { preset }, model }: ContextGuruConfig): ConfigProblem[] {
  const ofPreset = { off: ["keep_chars", "model", "min_chars"], safe: ["keep_chars", "model"] };
  const keys = preset === "off" || preset === "safe" ? ofPreset[preset] : [];
  const isUnnamed = model?.base_url === undefined && !keys.includes("model");
  const ofModel = isUnnamed ? Object.keys(modelSchema.shape) : [];
  return [
    ...keys.map((key) => ({ path: [key], message: `has no effect with preset ${preset}` })),
    ...ofModel.map((key) => ({ path: ["model", key], message: "has no effect without base_url" })),
  ];
}

/** A checked configuration. */
export type ContextGuruConfig = z.output<typeof contextGuruConfig>;

/** The model of a configuration that names one. */
export type NamedModel = z.output<typeof modelSchema> & {
  readonly base_url: string;
  readonly model: string;
};

/** An empty block names none. */
export function modelOf({ model }: ContextGuruConfig): NamedModel | undefined {
  if (model?.base_url === undefined || model.model === undefined) return undefined;
  return { ...model, base_url: model.base_url, model: model.model };
}

/** Undefined where nothing is shortened. */
export function limitsOf(config: ContextGuruConfig): Limits | undefined {
  const { preset } = config.engine;
  if (preset === "off") return undefined;
  const keepChars = config.keep_chars ?? (preset === "aggressive" ? 3_000 : 8_000);
  return { keepChars, isLossless: preset === "safe" };
}

/** How long a text can be asked for. */
export function ttlMsOf({ store }: ContextGuruConfig): number {
  return durationMs(store.ttl);
}
