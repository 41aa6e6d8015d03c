/** One CONNECT: the host is judged, then the connection is opened by the bridge or spliced to a vetted address. */
import type { Socket } from "node:net";
import { type AdaptiveReader, adaptiveReader } from "../../net/adaptive-reader.ts";
import { cutOff } from "../../net/cut.ts";
import { FirstLine } from "../../net/first-line.ts";
import { Splice, type SpliceResult } from "../../net/splice.ts";
import type { ByteMeter } from "../../pipeline/byte-meter.ts";
import { Cancellation } from "../../pipeline/cancellation.ts";
import type { RequestContext } from "../../pipeline/context.ts";
import type { Denial } from "../../pipeline/decision.ts";
import type { Permit, Verdict } from "../../pipeline/pipeline.ts";
import type { BridgeServer } from "./bridge-server.ts";
import { bridgeTunnel } from "./bridged.ts";
import type { Ending } from "../flow/finish.ts";
import {
  type CutReason,
  endOf,
  type JudgedBy,
  type OpeningTunnel,
  type OpenTunnel,
} from "../flow/tunnel-registry.ts";
import { clearTunnel } from "./clear.ts";
import { checkServerName, firstOf, lateRequest } from "./first-words.ts";
import { openedTunnel, serveClear } from "./opened.ts";
import {
  endOpened,
  isForTheProxy,
  notTls,
  refuse,
  refuseFull,
  refuseInside,
  refuseOutside,
} from "./refused.ts";
import { denialOf } from "../flow/reply.ts";
import {
  defersDefault,
  planFor,
  planWith,
  tellsInside,
  type TunnelPlan,
  unseenRefusal,
} from "./plan.ts";
import {
  abortAtItsEnd,
  contextOf,
  type PermittedTunnel,
  type TunnelRequest,
  type TunnelServices,
} from "./request.ts";
import { after, type Opening, splicedEnding } from "./steps.ts";

/** Runs the tunnel, and calls back at its end, when its generation is needed no longer. Never throws. */
export function tunnel(
  services: TunnelServices,
  bridge: BridgeServer,
  request: TunnelRequest,
  done: () => void,
): void {
  new Tunnel(services, bridge, request, done).begin();
}

const nothing = Buffer.alloc(0);

/** The flow and, where it is spliced, its two connections: one object, because what is idle should hold no more. */
class Tunnel extends Splice implements OpenTunnel, OpeningTunnel {
  readonly #services: TunnelServices;
  readonly #bridge: BridgeServer;
  readonly #request: TunnelRequest;
  readonly #done: () => void;
  readonly #isSkipped: boolean;
  readonly #cancellation = new Cancellation();
  readonly facts: RequestContext;
  readonly judgedBy: JudgedBy;
  #hasPlace = false;
  /** While it is being opened. */
  #openingSlot: number | undefined;
  /** While it is among the open ones. */
  #openSlot: number | undefined;
  /** Its client has had its 200, and may have sent nothing yet. */
  #isAnswered = false;
  #isOver = false;
  /** 0 until it is spliced. */
  #openedAt = 0;
  #cutReason: CutReason | undefined;
  /** Set where requests are judged, and the client's first bytes are not known to be none. */
  #firstLine: FirstLine | undefined;
  #meter: ByteMeter | undefined;
  /** How it ends where that is known before both connections are closed. */
  #refusal: Ending | undefined;

  constructor(
    services: TunnelServices,
    bridge: BridgeServer,
    request: TunnelRequest,
    done: () => void,
  ) {
    const { runtime, flow, client } = request;
    const { stalls, backlogs } = services;
    super({ idleTimeoutMs: runtime.limits.tunnelIdleTimeoutMs, stalls, backlogs });
    this.#services = services;
    this.#bridge = bridge;
    this.#request = request;
    this.#done = done;
    this.#isSkipped = request.isExempt ?? runtime.skipHosts.matches(flow.destination.host);
    this.judgedBy = { pipeline: runtime.outbound, epoch: services.tunnels.epoch };
    abortAtItsEnd(client, this.#cancellation);
    this.facts = contextOf(request, this.#cancellation);
  }

  begin(): void {
    this.#openingSlot = this.#services.tunnels.opening(this);
    try {
      const judge = this.#isSkipped ? undefined : this.#request.runtime.outbound;
      this.#after(this.#services.recorder.arrived(this.facts, judge), () => this.#enter());
    } catch (error) {
      this.#fail(error);
    }
  }

  cut(reason: CutReason): void {
    if (!this.isStopped) this.#cutReason = reason;
    // A kill comes for thousands at once.
    this.stop({ reason: "aborted" }, reason === "killed");
  }

  kill(denial: Denial): void {
    if (this.#isAnswered) {
      cutOff(this.#request.client);
      this.#finish(endOpened(this.#request, denial));
    } else this.#refuse(denial);
    this.#cancellation.abort();
  }

  /** From now on the registry does not know it. */
  #leave(): void {
    if (this.#openingSlot !== undefined) this.#services.tunnels.opened(this.#openingSlot);
    if (this.#openSlot !== undefined) this.#services.tunnels.delete(this.#openSlot);
    this.#openingSlot = this.#openSlot = undefined;
  }

  #enter(): void {
    this.#hasPlace = this.#services.tunnels.take(this.#request.runtime.limits.maxTunnels);
    if (this.#hasPlace) this.#judge();
    else this.#finish(refuseFull(this.#services, this.#request));
  }

  #judge(): void {
    const { runtime, flow, captured } = this.#request;
    const planned = planFor(runtime.bridge, flow.destination, {
      skipped: this.#isSkipped,
      // The listener of captured connections has looked already, and serves plain HTTP itself.
      readsClear: captured === undefined && runtime.outbound.readsRequests,
    });
    if (this.#isSkipped) {
      this.#carry(planned, runtime.outbound.permitSkipped(flow), false);
      return;
    }
    const startedAt = performance.now();
    const deferDefault = defersDefault(planned) && !this.#isRaw;
    const verdict = runtime.outbound.runRequest(this.facts, { deferDefault });
    this.#after(verdict, (judged) => {
      this.#services.recorder.phase(this.facts, "pipeline", startedAt);
      this.#follow(judged, planned);
    });
  }

  /** The protocol of a captured connection is known; other than TLS there is nothing to open. */
  get #isRaw(): boolean {
    return this.#request.captured?.isTls === false;
  }

  #follow(verdict: Verdict, planned: TunnelPlan): void {
    if (verdict.kind === "permit") {
      const { permit, isDeferred = false } = verdict;
      const telling = this.#services.recorder.permitted(this.facts);
      this.#after(telling, () => this.#carry(planned, permit, isDeferred));
      return;
    }
    const parts = { ...this.#request, context: this.facts, verdict };
    if (tellsInside(planned) && !this.#isRaw && !isForTheProxy(verdict)) {
      this.#isAnswered = true;
      this.#endWith(refuseInside(this.#services, this.#bridge, { ...parts, planned }));
    } else this.#finish(refuseOutside(parts));
  }

  #carry(planned: TunnelPlan, permit: Permit, isDeferred: boolean): void {
    const { flow, runtime } = this.#request;
    const plan = planWith(planned, this.facts);
    const passed = { context: this.facts, pipeline: runtime.outbound, isDeferred };
    const denial = unseenRefusal(plan, passed);
    if (denial !== undefined) this.#refuse(denial);
    else if (plan === "clear") {
      this.#isAnswered = true;
      const clear = { tunnel: this.#permitted(), unseen: unseenRefusal("splice", passed) };
      this.#after(clearTunnel(this.#services, this.#bridge, clear), (found) => {
        if ("status" in found) {
          this.#finish(found);
          return;
        }
        const { head, isSilent: looks } = found;
        if (!looks) this.#firstLine = new FirstLine();
        this.#dial(permit, { head, isEstablished: true, checksName: false, looks });
      });
    } else if (plan !== "bridge") {
      const checksName = plan === "passthrough" && !this.#isRaw;
      const { head, captured } = this.#request;
      const isWatched =
        !this.#isSkipped && captured?.hasSpoken === true && runtime.outbound.readsRequests;
      if (isWatched && !checksName && plan !== "look") this.#firstLine = new FirstLine();
      this.#dial(permit, { head, isEstablished: false, checksName, looks: plan === "look" });
    } else if (this.#isRaw) this.#refuse(notTls(flow.destination));
    else this.#endWith(bridgeTunnel(this.#services, this.#bridge, this.#permitted()));
  }

  #permitted(): PermittedTunnel {
    const onOpened = (): void => this.#leave();
    return { ...this.#request, context: this.facts, judgedBy: this.judgedBy, onOpened };
  }

  /** An opaque tunnel: dial first, send 200 after, copy both ways. */
  #dial(permit: Permit, opening: Opening): void {
    const { captured, client, runtime } = this.#request;
    const { upstream } = runtime;
    const startedAt = performance.now();
    const reader = adaptiveReader();
    this.#after(captured?.confirm(permit, upstream, this.#cancellation), () => {
      const dialled = upstream.connect(permit, { signal: this.#cancellation, reader });
      // Behind a 200 an error response would pass for bytes of the origin.
      if (opening.isEstablished) dialled.catch(() => cutOff(client));
      after(
        dialled,
        (socket) => this.#open(socket, reader, opening, startedAt),
        (error) => this.#fail(error),
      );
    });
  }

  #open(upstream: Socket, reader: AdaptiveReader, opening: Opening, dialledAt: number): void {
    // It was stopped meanwhile.
    if (this.#isOver) return void upstream.destroy();
    const { client, replies, flow, runtime } = this.#request;
    const { tunnels, recorder } = this.#services;
    this.#openedAt = recorder.phase(this.facts, "connect", dialledAt);
    this.hold(client, upstream, reader);
    if (!this.#isSkipped) this.#meter = runtime.outbound.bytes.meterOf(this.facts);
    this.levy(this.#meter);
    const slot = tunnels.add(this);
    this.#leave();
    this.#openSlot = slot;
    recorder.metrics.tunnels.opened();
    if (!opening.isEstablished) replies.established(client);
    if (opening.checksName) {
      const checked = checkServerName(this.#request, flow.destination, upstream);
      this.#after(checked, () => this.start(nothing));
    } else if (opening.looks) {
      this.#after(firstOf({ ...this.#request, head: opening.head }, upstream, reader), (first) => {
        if (first === "idle") this.stop({ reason: "idle" });
        else if (first.kind === "http" && !this.isStopped) {
          this.#readRequests(upstream);
          return;
        }
        if (first !== "idle" && first.kind === "opaque") this.#firstLine = new FirstLine();
        this.start(first !== "idle" && first.kind === "closed" ? first.said : nothing);
      });
    } else this.start(opening.head);
  }

  /** Takes over from the splice: its client speaks HTTP, and its server has not sent anything. */
  #readRequests(upstream: Socket): void {
    upstream.destroy();
    this.#leave();
    const opened = { ...this.#permitted(), openedAt: this.#openedAt };
    const serve = () => serveClear(this.#bridge, this.#request);
    this.#endWith(openedTunnel(this.#services, opened, serve));
  }

  override up(chunk: Buffer): void {
    const found = this.#firstLine?.read(chunk);
    if (found !== undefined) this.#firstLine = undefined;
    // What the pipeline has not seen.
    if (found === "request") this.#spoil(lateRequest(), "error");
    if (!this.isStopped) super.up(chunk);
  }

  protected onEnded({ bytesUp, bytesDown, reason }: SpliceResult): void {
    const { recorder } = this.#services;
    const seconds = (performance.now() - this.#openedAt) / 1_000;
    if (this.#refusal !== undefined) {
      recorder.metrics.tunnels.closed(0, 0, seconds, "error");
      this.#finish(this.#refusal);
      return;
    }
    const end = endOf(this.#cutReason) ?? reason;
    recorder.metrics.tunnels.closed(bytesUp, bytesDown, seconds, end);
    const denial = reason === "refused" ? this.#meter?.denial : undefined;
    this.#finish(splicedEnding(bytesUp, bytesDown, this.#cutReason ?? reason, denial));
  }

  #endWith(work: Promise<Ending>): void {
    this.#after(work, (ending) => this.#finish(ending));
  }

  #after<T>(given: T | Promise<T>, follow: (result: T) => void): void {
    after(
      given,
      (result) => (this.#isOver ? undefined : follow(result)),
      (error) => this.#fail(error),
    );
  }

  #fail(error: unknown): void {
    if (this.#isOver) return;
    if (this.#openedAt === 0) this.#refuse(denialOf(error), this.#cancellation.aborted);
    else {
      this.#spoil(error, "closed");
      this.start(nothing);
    }
  }

  /** The client has its 200: what went wrong is for the record. */
  #spoil(error: unknown, reason: "closed" | "error"): void {
    if (this.isStopped) return;
    this.stop({ reason });
    this.#refusal = refuse(this.#request, denialOf(error), this.#cancellation.aborted);
  }

  #refuse(denial: Denial, cancelled = false): void {
    this.#finish(refuse(this.#request, denial, cancelled));
  }

  #finish(ending: Ending): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#leave();
    const { recorder, tunnels } = this.#services;
    const { client, runtime } = this.#request;
    if (this.#hasPlace) tunnels.leave();
    client.destroySoon();
    const pipeline = this.#isSkipped ? undefined : runtime.outbound;
    const finishing = recorder.finished(this.facts, pipeline, ending);
    if (finishing === undefined) this.#done();
    else void finishing.finally(this.#done);
  }
}
