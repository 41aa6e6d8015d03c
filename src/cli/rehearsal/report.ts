/** An explanation as text for people. */
import type { ExplainedStep } from "../../pipeline/rehearsal.ts";
import type { ExplainedProbe, StageVerdict } from "./verdict.ts";

/** The report; control characters of what was asked about never reach the terminal. */
export function explanationText(explained: ExplainedProbe): string {
  const lines: string[] = [];
  for (const stage of explained.stages) lines.push(...stageLines(stage));
  if (explained.tunnel !== undefined) lines.push(column("tunnel", tunnels[explained.tunnel]));
  if (explained.sentPath !== undefined) lines.push(column("sent as", explained.sentPath));
  if (explained.addressLimits.length > 0)
    lines.push(column("allowed_ips", explained.addressLimits.join("; ")));
  for (const { address, class: kind, objection, remedy } of explained.addresses) {
    const refusal = objection === undefined ? "" : `, refused (${objection}): ${remedy ?? ""}`;
    lines.push(column("address", `${address} ${kind}${refusal}`));
  }
  for (const { plugin, attaches } of explained.credentials)
    lines.push(column("attached", `${attaches} (${plugin})`));
  if (explained.credentials.length === 0 && explained.verdict !== "deny")
    lines.push(column("attached", "nothing"));
  lines.push(summary(explained));
  return `${lines.map(printable).join("\n")}\n`;
}

const tunnels = {
  bridge: "opened by the TLS bridge: every request in it is judged",
  passthrough: "passed through unopened; its server name must be the host",
  clear: "plain HTTP in it is served: every request is judged",
  look: "plain HTTP in it is served, anything else is copied as it is; requests inside TLS are not seen",
  splice: "copied as it is; requests in it are not seen",
} as const;

function stageLines({ method, target, steps, note }: StageVerdict): string[] {
  const lines = [`${method} ${target}`, ...steps.map(stepLine)];
  if (note !== undefined) lines.push(column("request", note));
  return lines;
}

function stepLine(step: ExplainedStep): string {
  const { plugin, action, reason, details = {}, observed, fault } = step;
  const { policy, rule } = details;
  const place = [
    ...(policy === undefined ? [] : [`entry ${String(policy)}`]),
    ...(rule === undefined || rule === policy ? [] : [`rule ${String(rule)}`]),
  ];
  const mark = observed === true ? " (observe: changes nothing)" : "";
  const cause = fault === undefined ? "" : `: ${fault}`;
  return column(plugin, [`${action} ${reason}${cause}${mark}`, ...place].join(", "));
}

function summary({ verdict, plugin, reason, code, status }: ExplainedProbe): string {
  const isByDefault = verdict !== "deny" || code === "policy.forbidden";
  const by = plugin ?? (isByDefault ? "pipeline.outbound.default" : "the proxy");
  if (verdict === "allow") return `allowed by ${by}: ${reason}`;
  if (verdict === "audit") return `let through by ${by} and recorded (audit): ${reason}`;
  return `refused by ${by}: ${reason} (${code ?? "answered"}${status === undefined ? "" : `, ${status}`})`;
}

function column(name: string, text: string): string {
  return `  ${name.padEnd(16)} ${text}`;
}

function printable(line: string): string {
  return line.replaceAll(/[^\u0020-\u007e\u00a0-\uffff]/g, "?");
}
