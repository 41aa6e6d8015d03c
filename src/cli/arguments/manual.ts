/** `man`: the page of the manual, from the table of commands. */
import { type NamedCommand, program } from "./listing.ts";

/** The page of the manual, section 1, in the man(7) macros. */
export function manualPage(rows: readonly NamedCommand[], version: string): string {
  const commands = rows.flatMap(({ usage, parameters }) => {
    const calls = Object.entries(usage).map(
      ([call, does]) => `.TP\n.B ${roff(`${program} ${call}`)}\n${roff(does)}\n`,
    );
    const options = Object.values(parameters)
      .filter(({ help }) => help !== "")
      .map(({ written, help }) => `.TP\n.B ${roff(written)}\n${roff(help)}\n`);
    return options.length === 0 ? calls : [...calls, ".RS\n", ...options, ".RE\n"];
  });
  return `.TH ${program.toUpperCase()} 1 "" "${program} ${version}"
.SH NAME
${program} \\- data-plane proxy for AI agents: judges what leaves, validates what comes in
.SH SYNOPSIS
.B ${program}
.RI [ command ]
.RB \\-\\-config
.I FILE
.RI [ option ...]
.SH COMMANDS
${commands.join("")}.SH EXIT STATUS
.TP
.B 0
success
.TP
.B 1
a failure while running, or a check that failed
.TP
.B 2
bad usage or a bad configuration
.PP
.B run \\-\\- COMMAND
exits as COMMAND does, with 128 and the number of the signal that ended it, with 127 when it is not there.
.SH ENVIRONMENT
.TP
.B LOG_LEVEL
debug, info (the default), warn or error
.SH FILES
The configuration file is YAML; docs/configuration.md in the package lists its keys, and
.B ${program} schema
prints its JSON Schema.
`;
}

/** A line of text: roff reads a dot or an apostrophe at its beginning as a request, and a hyphen as one that may be broken. */
const roff = (text: string): string =>
  text
    .replaceAll("\\", "\\e")
    .replaceAll("-", "\\-")
    .replaceAll(/^(?=[.'])/gm, "\\&");
