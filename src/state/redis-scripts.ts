/** The steps that a server makes without anybody coming in between. */
import { hash } from "node:crypto";

/** A script and the digest under which a server keeps it. */
export interface Script {
  readonly text: string;
  readonly digest: string;
}

function script(text: string): Script {
  return { text, digest: hash("sha1", text) };
}

/**
 * A counter is a hash: `v` its value, `n` how often it was added to. For each key: by, below (or nothing), ttl (or
 * nothing), and the v and n that the caller saw last.
 *
 * A counter with a smaller n has been lost since (a flush, a failover, a restart from an older snapshot), and is put back
 * to what the caller saw. The result: the index from 1 of the addition that was refused or 0, how many were put back, and
 * v and n of each.
 */
export const addScript = script(`
local v, n, restored, refused = {}, {}, 0, 0
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 5
  local found = redis.call('HMGET', key, 'v', 'n')
  v[i] = tonumber(found[1] or '0')
  n[i] = tonumber(found[2] or '0')
  local seen = tonumber(ARGV[at + 5])
  if n[i] < seen then
    v[i] = math.max(v[i], tonumber(ARGV[at + 4]))
    n[i] = seen
    restored = restored + 1
  end
  local below = ARGV[at + 2]
  if refused == 0 and below ~= '' and v[i] >= tonumber(below) then refused = i end
end
if refused == 0 or restored > 0 then
  for i, key in ipairs(KEYS) do
    local at = (i - 1) * 5
    if refused == 0 then
      v[i] = math.max(0, v[i] + tonumber(ARGV[at + 1]))
      n[i] = n[i] + 1
    end
    redis.call('HSET', key, 'v', string.format('%.0f', v[i]), 'n', string.format('%.0f', n[i]))
    if ARGV[at + 3] ~= '' then redis.call('PEXPIRE', key, ARGV[at + 3]) end
  end
end
local result = { refused, restored }
for i = 1, #KEYS do
  result[#result + 1] = string.format('%.0f', v[i])
  result[#result + 1] = string.format('%.0f', n[i])
end
return result
`);

/** Whether there has to be a value (1 or 0), which one, the new one, its ttl (or nothing). */
export const compareAndSetScript = script(`
local found = redis.call('GET', KEYS[1])
if ARGV[1] == '0' then
  if found then return 0 end
elseif found ~= ARGV[2] then
  return 0
end
if ARGV[4] == '' then redis.call('SET', KEYS[1], ARGV[3])
else redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[4]) end
return 1
`);
