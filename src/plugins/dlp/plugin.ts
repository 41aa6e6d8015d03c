/**
 * dlp: what must not leave is found in what the agent sends, and in what comes back.
 *
 * It runs before credentials are attached, so that those of the proxy are in a request only where somebody else put them.
 */
import { contentCodings } from "../../http/body.ts";
import { FieldNames } from "../../http/field-names.ts";
import { isAwsChunked } from "../../http/signed-fields.ts";
import type { Finding } from "../../dlp/detectors.ts";
import { StreamScanner } from "../../dlp/stream-scanner.ts";
import {
  type Answer,
  type BodyJudge,
  type ApprovalGate,
  askPerson,
  type Decision,
  definePlugin,
  type Frame,
  type Message,
  observe,
  type Plugin,
  type PluginDeps,
  type RequestContext,
} from "../../pipeline/plugin.ts";
import { keyFields } from "../credentials/key-fields.ts";
import { BodyStream } from "./body-stream.ts";
import { dlpConfig, type DlpConfig, unusedKeysOf } from "./config.ts";
import { Detection } from "./detection.ts";
import { FrameStream } from "./frame-stream.ts";
import { HostPlans, type Side } from "./host-plan.ts";
import { bodyPlace, type PartScan, type Placed, scanFields, targetPlace } from "./request-texts.ts";
import { bodyProblem, scanBody } from "./request-body.ts";
import { Redaction } from "./redaction.ts";
import { inMessage, type JudgedPiece, judgePiece } from "./judged-piece.ts";
import { hide, redactFields, redactRequest } from "./request-redaction.ts";
import {
  type Demand,
  demandOf,
  detailsOf,
  eventOf,
  questionAbout,
  recorded,
  refusal,
  rpcOf,
  unread,
} from "./verdicts.ts";

/** The definition that a pipeline names. */
export const dlp = definePlugin<DlpConfig>({
  name: "dlp",
  description: "Finds secrets and personal data in what leaves and in what comes back",
  config: dlpConfig,
  stages: ["connect", "request"],
  body: { request: "write" },
  redacts: true,
  unused: unusedKeysOf,
  create: (config, deps) => new Dlp(config, deps),
});

const credentials = ["authorization", "proxy-authorization", "cookie", "set-cookie", ...keyFields];
/** Other types are no text that an agent reads; what is not said to be anything may be one. */
const textTypes =
  /^\s*(?:$|text\/|multipart\/|application\/(?:[\w.+-]*(?:json|xml|yaml|javascript|graphql|toml|eventstream)[\w.+-]*|x-www-form-urlencoded|jsonl)\s*(?:;|$))/i;

class Dlp implements Plugin {
  readonly #config: DlpConfig;
  readonly #deps: PluginDeps;
  readonly #plans: HostPlans;
  readonly #detection: Detection;
  readonly #credentials: FieldNames;
  readonly #gate: ApprovalGate | undefined;
  readonly #lists: ReadonlySet<string>;
  /** Owners of the state that messages and frames have beside that of the request. */
  readonly #messages = {};
  readonly #frames = {};

  constructor(config: DlpConfig, deps: PluginDeps) {
    this.#config = config;
    this.#deps = deps;
    this.#plans = new HostPlans(config);
    this.#detection = new Detection(config, deps, (basis) => this.#gate?.rebase(basis));
    this.#gate = deps.approvals?.gate(this.#detection.basis);
    this.#credentials = new FieldNames([...credentials, ...config.credential_fields]);
    this.#lists = new Set(config.lists.map(({ name }) => name));
  }

  async start(): Promise<void> {
    const warning = this.#detection.warning();
    if (warning !== undefined) this.#deps.log.warn({}, warning);
  }

  wantsBody({ destination }: RequestContext): boolean {
    return !this.#plans.planOf(destination.host).request.isEmpty;
  }

  wantsAnswer({ destination }: RequestContext): boolean {
    return !this.#plans.planOf(destination.host).response.isEmpty;
  }

  /** Before the head is there, it may be a text. */
  wantsAnswerBody({ response }: RequestContext): boolean {
    return response === undefined || textTypes.test(response.headers.get("content-type") ?? "");
  }

  needsMessages(context: RequestContext): boolean {
    return this.wantsBody(context);
  }

  needsServerMessages(context: RequestContext): boolean {
    return this.wantsAnswer(context);
  }

  /** A body that has a content coding is looked through below it, and goes on as it is. */
  judgeStream(context: RequestContext): BodyJudge | undefined {
    if (this.#config.larger_bodies === "refuse" || isAwsChunked(context.headers)) return undefined;
    const { request: side } = this.#plans.planOf(context.destination.host);
    const [coding = "gzip", ...more] = contentCodings(context.headers.get("content-encoding"));
    if (!["gzip", "x-gzip"].includes(coding) || more.length > 0) return undefined;
    return new BodyStream({
      scanner: this.#detection.scanner,
      side,
      context,
      tooMuch: this.#tooMuch("request"),
      count: (placed) => this.#count(placed, side),
    });
  }

  onRequest(context: RequestContext): Answer | Promise<Answer> {
    const { request: side, response } = this.#plans.planOf(context.destination.host);
    const { tunnelTerms, stage } = context;
    const isOpen = this.#config.opaque_tunnels === "pass";
    if (stage === "connect" && !isOpen && (side.isEnforced || response.isEnforced))
      tunnelTerms.mustInspect ??= "dlp reads them, with opaque_tunnels: refuse";
    if (side.isEmpty) return undefined;
    const problem = stage === "connect" ? undefined : this.#unreadable(context, side);
    if (problem !== undefined) return problem;
    const parts = [this.#host(context, side)];
    if (stage === "request") {
      const { scanner } = this.#detection;
      parts.push(
        this.#target(context, side),
        scanFields(context.headers, {
          scanner,
          side,
          credentials: this.#credentials,
          isOfCaller: context.flow.direction === "inbound",
        }),
        scanBody(context, scanner, side),
      );
    }
    const found = {
      placed: parts.flatMap(({ placed }) => placed),
      isCut: parts.some(({ isCut }) => isCut),
    };
    return this.#verdict(found, context, side);
  }

  onMessage(context: RequestContext, message: Message): Answer {
    const { request: side } = this.#plans.planOf(context.destination.host);
    if (side.isEmpty) return undefined;
    const { scanner } = this.#detection;
    const { data } = message;
    const stream = context.stateOf(this.#messages, () => new StreamScanner(scanner, side.wanted));
    const before = stream.length;
    const { findings, isCut } = stream.push(data);
    const spread = findings.filter(({ start }) => start < before).map(inMessage);
    const whole = findings.filter(({ start }) => start >= before).map(inMessage);
    return this.#judgePiece(context, { what: "message", side, spread, whole, isCut, ...message });
  }

  onServerMessage(context: RequestContext, message: Message): Answer {
    const { response: side } = this.#plans.planOf(context.destination.host);
    if (side.isEmpty) return undefined;
    const { data } = message;
    const { findings, isCut } = this.#detection.scanner.scan(data, side.wanted);
    const spread = this.#spread(context, data, side).map(inMessage);
    const whole = findings.map(inMessage);
    return this.#judgePiece(context, { what: "said", side, spread, whole, isCut, ...message });
  }

  onResponse(context: RequestContext): Answer {
    const { response: side } = this.#plans.planOf(context.destination.host);
    const { response } = context;
    if (side.isEmpty || response === undefined) return undefined;
    const { scanner } = this.#detection;
    const found = scanFields(response.headers, {
      scanner,
      side,
      credentials: this.#credentials,
      isOfCaller: false,
    });
    const { placed } = found;
    this.#count(placed, side);
    const demand = demandOf(found, side);
    if (demand.action === "none") return undefined;
    if (demand.action === "observe") return recorded("found", placed);
    const isChanged =
      demand.action === "redact" &&
      redactFields(response.headers, placed, new Redaction(scanner, side));
    return isChanged
      ? recorded("redacted", placed)
      : refusal("response", demand, placed, { context });
  }

  onFrame(context: RequestContext, { data, last }: Frame): Answer {
    const { response: side } = this.#plans.planOf(context.destination.host);
    if (side.isEmpty || data.length === 0 || !this.wantsAnswerBody(context)) return undefined;
    const { scanner } = this.#detection;
    const { findings, isCut } = scanner.scan(data, side.wanted);
    const spread = (last ? [] : this.#spread(context, data, side)).map((finding): Placed => ({
      finding,
      part: "body",
      shown: "several events",
    }));
    const whole = findings.map((finding) =>
      bodyPlace(finding, data, context.response?.headers, scanner),
    );
    const type = last ? (context.response?.headers.get("content-type") ?? "") : "";
    return this.#judgePiece(context, { what: "response", side, spread, whole, isCut, data, type });
  }

  /** What this frame or message ends, and an earlier one of the origin began. */
  #spread(context: RequestContext, data: Buffer, side: Side): readonly Finding[] {
    const make = (): FrameStream => new FrameStream(this.#detection.scanner, side.wanted);
    return context.stateOf(this.#frames, make).push(data);
  }

  #judgePiece(context: RequestContext, piece: JudgedPiece): Answer {
    return judgePiece(context, piece, {
      redaction: new Redaction(this.#detection.scanner, piece.side),
      count: (placed) => this.#count(placed, piece.side),
      tooMuch: (noun) => this.#tooMuch(noun),
    });
  }

  /** Why a body that has to be read cannot be. */
  #unreadable(context: RequestContext, side: Side): Decision | undefined {
    if (!side.isEnforced || !context.hasBody) return undefined;
    const why = bodyProblem(context);
    if (why === undefined) return undefined;
    return unread("request", context, `the body ${why}, and dlp has to read it`);
  }

  #host(context: RequestContext, side: Side): PartScan {
    const { findings, isCut } = this.#detection.scanner.scanName(
      context.destination.host,
      side.wanted,
    );
    const placed = findings.map((finding): Placed => ({
      finding,
      part: "host",
      shown: "the host name",
    }));
    return { placed, isCut };
  }

  #target({ path }: RequestContext, side: Side): PartScan {
    const { scanner } = this.#detection;
    const bytes = Buffer.from(path, "latin1");
    const { findings, isCut } = scanner.scan(bytes, side.wanted);
    return { placed: findings.map((finding) => targetPlace(finding, bytes, scanner)), isCut };
  }

  #verdict(found: PartScan, context: RequestContext, side: Side): Answer | Promise<Answer> {
    const { placed, isCut } = found;
    this.#count(placed, side);
    const demand = demandOf(found, side);
    if (demand.action === "refuse" || (isCut && side.isEnforced)) {
      // Records show the path, and what parsers saw.
      hide(context, placed, new Redaction(this.#detection.scanner, side, true));
      return demand.action === "refuse"
        ? refusal("request", demand, placed, { context })
        : unread("request", context, this.#tooMuch("request"));
    }
    if (demand.action === "ask") return this.#ask(found, context, side);
    if (demand.action === "none") return undefined;
    if (demand.action === "observe") return recorded("found", placed);
    return this.#redacted(demand, placed, context, side);
  }

  /** A person decides; what other rules redact is redacted all the same. */
  async #ask(found: PartScan, context: RequestContext, side: Side): Promise<Decision> {
    const { placed } = found;
    const demand = demandOf(found, side);
    const redaction = new Redaction(this.#detection.scanner, side, true);
    const decision = await askPerson(
      this.#gate,
      context,
      questionAbout(demand, context, redaction),
    );
    if (decision.action === "deny") {
      hide(context, placed, redaction);
      const denial = { ...rpcOf("request", context), ...decision.denial };
      return { ...decision, denial, details: { ...detailsOf(placed), ...decision.details } };
    }
    const isOther = (one: Placed): boolean => side.rulingOf(one.finding)?.action === "redact";
    const others = placed.filter(isOther);
    const approved = placed.filter((one) => !isOther(one)).map(({ finding }) => finding);
    const rest = { ...demandOf({ ...found, placed: others }, side), approved };
    const refused = others.length === 0 ? undefined : this.#redacted(rest, others, context, side);
    return refused?.action === "deny"
      ? refused
      : observe(decision.reason, { ...detailsOf(placed), ...decision.details });
  }

  #redacted(
    demand: Demand & { readonly approved?: readonly Finding[] },
    placed: readonly Placed[],
    context: RequestContext,
    side: Side,
  ): Decision {
    const redaction = new Redaction(this.#detection.scanner, side, false, demand.approved);
    const why = redactRequest(context, { placed, side, redaction });
    if (why === undefined) return recorded("redacted", placed);
    hide(context, placed, new Redaction(this.#detection.scanner, side, true));
    return refusal("request", demand, placed, { context, why });
  }

  #count(placed: readonly Placed[], side: Side): void {
    for (const { finding } of placed) {
      const ruling = side.rulingOf(finding);
      if (ruling !== undefined) this.#deps.count(eventOf(ruling.action, finding, this.#lists));
    }
  }

  #tooMuch(what: string): string {
    return `the ${what} holds more than dlp looks through: more codings than max_decoded_bytes, or too many findings`;
  }
}
