/** `policy learn`: a policy file from what a proxy saw, by its event files or by its session API. */
import { commandFile, type FileCommand, refuseCommand } from "../config-file.ts";
import { type SessionApi, sessionApiOf } from "../session-api.ts";
import { hearApi, hearFile } from "./event-source.ts";
import { learn, policyFileText, type Taught, writePolicyFile } from "./learn.ts";
import { ObservedTraffic } from "./observed-traffic.ts";
import { askOnTerminal } from "./review.ts";
import { printableJson } from "../event-line.ts";

interface LearnCommand extends FileCommand {
  /** Files of events, or addresses of session APIs; the process that runs with the file is asked when absent. */
  readonly from?: readonly string[];
  /** The policy file that is added to; stdout when absent. */
  readonly out?: string;
  readonly review?: boolean;
  readonly json: boolean;
}

/** 0 also where there is nothing to add. */
export async function learnPolicy(command: LearnCommand): Promise<number> {
  const { out, review = false } = command;
  const terminal = review ? askOnTerminal() : undefined;
  try {
    const loaded = await commandFile(command, { allowUnset: true });
    if (loaded === undefined) return 2;
    const { config } = loaded;
    const text = out === undefined ? undefined : await policyFileText(out);
    const traffic = new ObservedTraffic();
    const own = (): SessionApi => sessionApiOf(config, "name an event file with --from");
    for (const source of command.from ?? [own().url]) {
      const isApi = /^https?:\/\//.test(source);
      const secretFile = config.session.api_secret_file;
      await (isApi ? hearApi({ url: source, secretFile }, traffic) : hearFile(source, traffic));
    }
    const taught = await learn({
      traffic,
      file: out ?? "the learned policy",
      text,
      ask: terminal?.ask,
    });
    const isWritten = out !== undefined && taught.text !== undefined && taught.text !== text;
    if (isWritten) await writePolicyFile(out, taught.text);
    tell(taught, isWritten, command);
    return taught.text === undefined && review ? 1 : 0;
  } catch (error) {
    return refuseCommand(error);
  } finally {
    terminal?.close();
  }
}

function tell({ text, notes }: Taught, isWritten: boolean, { out, json }: LearnCommand): void {
  if (json) {
    const answer = { policy: text ?? null, written: isWritten, notes };
    process.stdout.write(`${printableJson(answer, 2)}\n`);
    return;
  }
  for (const note of notes) process.stderr.write(`authbridge-proxy: ${note}\n`);
  if (out === undefined) process.stdout.write(text ?? "");
}
