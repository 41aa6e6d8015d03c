/** Marks that end one part of a conversation and begin another: a text that has them speaks as somebody else. */
import type { Findings } from "./findings.ts";
import { Surroundings } from "./surroundings.ts";

const patterns: readonly (readonly [RegExp, number])[] = [
  // Templates of chats.
  [
    /<\|(?:im_end|im_sep|endoftext|eot_id|eom_id|end_header_id|begin_of_text|end_of_text|end|start|channel|message|return|call|tool_call|tool_response|endofprompt|fim_prefix|observation)\|>/gi,
    40,
  ],
  [
    /\[\/?INST\]|<<\/?SYS>>|\[(?:\/)?(?:SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS)\]/g,
    40,
  ],
  [
    /<(?:start|end)_of_turn>|<(?:｜|\|)(?:User|Assistant|begin▁of▁sentence|tool▁calls▁begin)(?:｜|\|)>/gi,
    40,
  ],
  [/^[ \t]{0,3}#{2,3} ?(?:Instruction|System|Assistant|Human|User Input|Response):/gim, 20],
  [/\n\n(?:Human|Assistant|System):[ \n]/g, 25],
  [/<\|(?:im_start|system|user|assistant|start_header_id)\|>/gi, 50],
  // The end of what a tool said, of a document, of what is not trusted.
  [
    /<\/(?:tool_result|tool_results|tool_response|tool_output|tool_use_result|function_result|function_results|function_response|function_calls|antml:[a-z_]{1,20}|untrusted[a-z_-]{0,20}|external[a-z_-]{0,20}|user_query|user_input|user_message|user_data|search_results?|retrieved[a-z_-]{0,20}|document_content|fetched[a-z_-]{0,20}|web_?page[a-z_-]{0,12})>/gi,
    40,
  ],
  [
    /<(?:tool_result|tool_response|function_results?|function_calls|invoke name=|antml:[a-z_]{1,20}|tool_call|tool_use)[^<>\n]{0,60}>/gi,
    30,
  ],
  [
    /<\/?(?:system|system_prompt|system-prompt|system_message|system-reminder|developer|admin|assistant|sys|override|secret_instructions?|hidden_instructions?)(?:\s[^<>\n]{0,60})?>/gi,
    30,
  ],
  [/<(?:IMPORTANT|CRITICAL|INSTRUCTIONS?|SECRET|HIDDEN|NOTE_TO_(?:AI|LLM|ASSISTANT))>/g, 25],
  [
    /-{3}\s{0,3}(?:BEGIN|END|START|STOP) (?:OF )?(?:SYSTEM|USER|ADMIN|DEVELOPER|NEW|TOOL|UNTRUSTED|TRUSTED|DOCUMENT|CONTEXT)\b[^\n-]{0,40}-{3}/gi,
    30,
  ],
];

/** Finds them; in code, in quotations and in texts about them they count less. */
export function inspectTags(text: string, findings: Findings): void {
  findings.steps += text.length;
  if (!/[<[]|\n\n|###|---/.test(text)) return;
  const around = new Surroundings(text, false);
  let best = 0;
  let kinds = 0;
  for (const [pattern, score] of patterns) {
    let own = 0;
    for (const { index } of text.matchAll(pattern)) {
      findings.steps += 1;
      own = Math.max(own, score * around.factorAt(index));
      if (own === score) break;
    }
    if (own > 0) kinds += 1;
    best = Math.max(best, own);
  }
  if (best > 0) findings.add("tag_smuggling", best + (kinds > 1 && best >= 20 ? 10 : 0));
}
