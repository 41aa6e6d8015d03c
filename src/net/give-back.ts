/** Memory of what was read, given back at once. */

/** Less than this costs the collector nothing worth a call. */
const worthwhileBytes = 16_384;

/**
 * Frees the memory of a chunk that nobody reads any more; the chunk is empty afterwards.
 *
 * Node reads into 64 KiB outside the heap, and V8 marks the whole heap again and again because of them: at some hundred MB/s
 * that is half of what carrying them costs. Only for a chunk that is the whole of its memory, as a socket emits it.
 */
export function giveBack(chunk: Uint8Array): void {
  const { buffer: memory, length } = chunk;
  if (length < worthwhileBytes || memory.byteLength !== length) return;
  if (memory instanceof ArrayBuffer && !memory.detached) memory.transfer(0);
}
