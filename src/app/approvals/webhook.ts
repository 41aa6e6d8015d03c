/** Tells a chat or another service of each question: signed, tried a few times, by one of the replicas. */
import { setTimeout as after } from "node:timers/promises";
import { shownText } from "../../approval/visible.ts";
import { type Ask, shownAsk } from "../../approval/told.ts";
import type { Config } from "../../config/presets.ts";
import { durationMs } from "../../duration.ts";
import { messageOf } from "../../errors.ts";
import type { OperatorFetch, StateStore } from "../../pipeline/plugin.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Metrics } from "../../telemetry/metrics.ts";
import { secretIn } from "./secret-file.ts";
import { signatureOf } from "./signature.ts";

/** What the webhook stands on. */
interface WebhookServices {
  readonly log: Logger;
  readonly metrics: Metrics;
  /** In which one of several replicas claims to tell. */
  readonly store: StateStore;
}

/** A question, or that nobody needs to decide it any more, and why. */
interface Message {
  readonly ask: Ask;
  readonly withdrawn?: string;
}

type Settings = NonNullable<Config["approval"]["webhook"]>;

const firstRetryMs = 500;
const maxAtOnce = 16;
const maxWaiting = 1_000;
const maxResponseBytes = 65_536;
const toldForMs = 24 * 3_600_000;

/** The webhook of the process. */
export class Webhook {
  readonly origin: string;
  readonly #settings: Settings;
  readonly #services: WebhookServices;
  readonly #secret: { reveal(): string } | undefined;
  readonly #waiting: Message[] = [];
  /** Those that are on their way: nobody hears of an end first. */
  readonly #sending = new Map<string, Promise<void>>();
  #running = 0;
  #fetch: OperatorFetch | undefined;

  constructor(settings: Settings, services: WebhookServices) {
    this.#settings = settings;
    this.#services = services;
    this.origin = new URL(settings.url).origin;
    const { secret_file: path } = settings;
    const key = "approval.webhook.secret_file";
    this.#secret = path === undefined ? undefined : secretIn(path, key, services.log);
  }

  /** The way of the present generation. */
  use(fetch: OperatorFetch): void {
    this.#fetch = fetch;
  }

  tell(message: Message): void {
    if (this.#waiting.length >= maxWaiting) {
      this.#failed(message.ask, "too many messages wait");
      return;
    }
    this.#waiting.push(message);
    if (this.#running < maxAtOnce) void this.#run();
  }

  async #run(): Promise<void> {
    this.#running += 1;
    for (let one = this.#waiting.shift(); one !== undefined; one = this.#waiting.shift()) {
      const { ask, withdrawn } = one;
      await this.#sending.get(ask.id);
      const sending = this.#send(one).catch((error: unknown) =>
        this.#failed(ask, messageOf(error)),
      );
      if (withdrawn === undefined) this.#sending.set(ask.id, sending);
      await sending;
      if (withdrawn === undefined) this.#sending.delete(ask.id);
    }
    this.#running -= 1;
  }

  async #send({ ask, withdrawn }: Message): Promise<void> {
    const { store, metrics } = this.#services;
    const key = `approval:${withdrawn === undefined ? "told" : "untold"}:${ask.id}`;
    const { refusedAt } = await store.add([{ key, by: 1, below: 1, ttlMs: toldForMs }]);
    if (refusedAt !== undefined) return;
    const { attempts, format } = this.#settings;
    const isSlack = format === "slack";
    const message =
      withdrawn === undefined
        ? (isSlack ? slackMessage : genericMessage)(ask)
        : (isSlack ? slackWithdrawal : genericWithdrawal)(ask, withdrawn);
    const body = JSON.stringify(message);
    for (let attempt = 1; ; attempt += 1) {
      const problem = await this.#post(body);
      if (problem === undefined) break;
      if (attempt >= attempts || ask.expiresAt <= Date.now()) throw new Error(problem);
      await after(firstRetryMs * 2 ** (attempt - 1), undefined, { ref: false });
    }
    metrics.counters.approval_webhook_total.of("ok").value += 1;
  }

  /** Why it was not taken. */
  async #post(body: string): Promise<string | undefined> {
    const { url, timeout } = this.#settings;
    const timestamp = String(Math.floor(Date.now() / 1_000));
    const secret = this.#secret?.reveal();
    if (secret === "") return "approval.webhook.secret_file cannot be read";
    try {
      const response = await this.#fetch?.(url, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          ...(secret === undefined
            ? {}
            : {
                "authbridge-timestamp": timestamp,
                "authbridge-signature": signatureOf("v1", secret, timestamp, body),
              }),
        },
        body,
        timeoutMs: durationMs(timeout),
        maxBytes: maxResponseBytes,
      });
      const { status = 0 } = response ?? {};
      return status >= 200 && status < 300 ? undefined : `it responds with ${status}`;
    } catch (error) {
      return messageOf(error);
    }
  }

  #failed({ id }: Ask, problem: string): void {
    const { log, metrics } = this.#services;
    metrics.counters.approval_webhook_total.of("failed").value += 1;
    log.error({ approval: id, problem }, "approval.webhook was not told of a question");
  }
}

function genericMessage(ask: Ask): object {
  return { type: "approval.asked", ...shownAsk(ask) };
}

function genericWithdrawal({ id, plugin, rule }: Ask, why: string): object {
  return { type: "approval.withdrawn", id, plugin, rule, why };
}

/** Slack takes 3,000 characters in all. */
const maxText = 500;
const maxNote = 50;

/** Nothing that an agent wrote is a link, a mention or a page that Slack fetches to show it. */
const nothingFetched = {
  unfurl_links: false,
  unfurl_media: false,
  link_names: false,
  parse: "none",
} as const;

function slackWithdrawal({ request: { method, host }, id }: Ask, why: string): object {
  const text = `No approval is needed any more: ${plain(method)} ${plain(host)} (${id}): ${plain(why)}`;
  return { text, ...nothingFetched };
}

/** Blocks of Slack, whose buttons send the decision to the app's request URL. */
function slackMessage({ id, request, why, expiresAt }: Ask): object {
  const { method, scheme, host, port, path, caller, tool, arguments: given } = request;
  const { bodyBytes, bodySha256, upgrade } = request;
  const lines = [
    `*${plain(caller)}* asks: ${plain(method)} ${plain(`${scheme}://${host}:${port}${path}`)}`,
    ...(upgrade === undefined ? [] : [plain(`changes to ${upgrade}`)]),
    ...(tool === undefined ? [] : [`${plain(tool)} ${plain(given ?? "")}`]),
    ...(bodySha256 === undefined ? [] : [`${bodyBytes} bytes, SHA-256 ${bodySha256}`]),
    plain(why),
    `until ${new Date(expiresAt).toISOString()}`,
  ];
  const button = (action: string, label: string, style: string): object => ({
    type: "button",
    action_id: action,
    value: id,
    style,
    text: { type: "plain_text", text: label },
  });
  return {
    text: `An approval is needed: ${plain(method)} ${plain(host)}`,
    ...nothingFetched,
    blocks: [
      { type: "section", text: { type: "mrkdwn", verbatim: true, text: lines.join("\n") } },
      {
        type: "actions",
        elements: [button("allow", "Approve", "primary"), button("deny", "Deny", "danger")],
      },
    ],
  };
}

/** What an agent sends is no markup, and leaves room for the rest, also where each character becomes several. */
function plain(text: string): string {
  for (let most = maxText; ; most /= 2) {
    const safe = shownText(text, most)
      .replaceAll("&", "&amp;")
      .replaceAll("<", "&lt;")
      .replaceAll(">", "&gt;")
      .replaceAll(/[*_~`]/g, (mark) => `\u200B${mark}`);
    if (safe.length <= maxText + maxNote) return safe;
  }
}
