/**
 * How much of a request body that nobody wants is still read and dropped behind its response, and for how long.
 *
 * Many clients read no response before they have sent their request, or lose it to a reset that comes meanwhile.
 */
export const lingerBytes = 16_777_216;
export const lingerMs = 2_000;
