/** OpenAI's images and audio: recognised and counted; what was drawn or spoken is not kept, and an upload is not read. */
import { textOf } from "../http/json-access.ts";
import { boundedName, Conversation } from "./inference-bounds.ts";
import { type Dialect, readError, requestView } from "./inference-dialect.ts";
import type { InferenceApi } from "./inference-view.ts";
import { openAiUsage } from "./openai-chat.ts";

function media(api: InferenceApi): Dialect {
  return {
    request: (body, place) => {
      const conversation = new Conversation();
      const said = textOf(body["prompt"] ?? body["input"]);
      if (said !== undefined) conversation.add("user", said);
      return requestView(api, {
        model: boundedName(textOf(body["model"]) ?? place.model),
        stream: body["stream"] === true || textOf(body["stream_format"]) === "sse",
        messages: conversation.messages,
      });
    },
    whole: (fold, body) => {
      if (readError(fold, body["error"])) return;
      fold.text(body["text"]);
      openAiUsage(fold, body["usage"]);
    },
    // The last event of a stream has the usage; a transcript comes in pieces and then whole.
    event: (fold, body) => {
      if (readError(fold, body["error"])) return;
      if (textOf(body["type"]) === "transcript.text.delta") fold.text(body["delta"]);
      openAiUsage(fold, body["usage"]);
    },
  };
}

/** /images/generations, /images/edits, /images/variations. */
export const openAiImages = media("openai.images");
/** /audio/speech, /audio/transcriptions, /audio/translations. */
export const openAiAudio = media("openai.audio");
