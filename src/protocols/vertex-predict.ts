/** Vertex's `:predict`: embeddings and images of Google's models; vectors and images are not kept. */
import { countOf, objectOf, objectsOf } from "../http/json-access.ts";
import { boundedName, Conversation } from "./inference-bounds.ts";
import { type Dialect, readError, requestView } from "./inference-dialect.ts";
import { addTexts } from "./openai-completions.ts";

/** One prediction for each instance. */
export const vertexPredict: Dialect = {
  request: (body, place) => {
    if (!Array.isArray(body["instances"])) return undefined;
    const conversation = new Conversation();
    for (const instance of objectsOf(body["instances"]))
      addTexts(conversation, instance["content"] ?? instance["prompt"] ?? instance["text"]);
    return requestView("vertex.predict", {
      model: boundedName(place.model),
      stream: false,
      messages: conversation.messages,
    });
  },
  whole: (fold, body) => {
    if (readError(fold, body["error"])) return;
    let sum: number | undefined;
    for (const prediction of objectsOf(body["predictions"])) {
      const { token_count: count } = objectOf(objectOf(prediction["embeddings"])["statistics"]);
      const tokens = countOf(count);
      if (tokens !== undefined) sum = (sum ?? 0) + tokens;
    }
    fold.usage({ promptTokens: sum });
  },
  event: () => undefined,
};
