/** The steps that a server makes without anybody coming in between. */
import { hash } from "node:crypto";
import { maxMembers } from "./store.ts";

/** A script and the digest under which a server keeps it. */
export interface Script {
  readonly text: string;
  readonly digest: string;
}

function script(text: string): Script {
  return { text, digest: hash("sha1", text) };
}

/** The field of a counter that has its value. */
export const counterField = "v";

/** Longer than it takes replicas to hear of a loss and to say what they saw. */
const holdMs = 100;

/**
 * A counter is a hash: `v` its value, `n` how often it was added to, `e` its incarnation, and `b` and `m`, the value and
 * count that the incarnation began with. For each key: by, below (or nothing), ttl (or nothing), the v, n and e that
 * the caller saw last, and a member (or nothing). Members are fields behind a dot, `c` of them: 1 where it is one, 0 where
 * it was taken out.
 *
 * A counter that is not there although the caller saw it, or that has a smaller n, was lost (a flush, a failover, a restart
 * from an older snapshot): a new incarnation begins with what the caller saw. Another caller that had seen more of the one
 * before adds the difference; bounded additions are held up for it, until `h`. Members that were lost are not put back:
 * they count once more. The result: the index from 1 of the addition that was refused or 0, how many counters were put
 * right, in how many milliseconds to try again, and v, n and e of each, and 1 where it was added to.
 */
export const addScript = script(`
local c, restored, refused, hold = {}, 0, 0, 0
local time = redis.call('TIME')
local fresh = time[1] .. '.' .. time[2]
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
for i, key in ipairs(KEYS) do
  local at = (i - 1) * 7
  local member = ARGV[at + 7]
  local f = redis.call('HMGET', key, 'v', 'n', 'e', 'b', 'm', 'h', 'c', '.' .. member)
  local k = {
    v = tonumber(f[1] or '0'), n = tonumber(f[2] or '0'), e = f[3] or '',
    b = tonumber(f[4] or '0'), m = tonumber(f[5] or '0'), h = tonumber(f[6] or '0'),
  }
  local count, isMember, by = tonumber(f[7] or '0'), f[8] == '1', tonumber(ARGV[at + 1])
  if member ~= '' and isMember == (by >= 0) then by = 0 end
  local v, n, e = tonumber(ARGV[at + 4]), tonumber(ARGV[at + 5]), ARGV[at + 6]
  if e ~= '' and (k.e == '' or (k.e == e and k.n < n)) then
    k = { v = v, n = n, e = fresh, b = v, m = n, h = now + ${holdMs} }
    restored = restored + 1
  elseif e ~= '' and k.e ~= e and n > k.m then
    k.v = math.max(0, k.v + v - k.b)
    k.n, k.b, k.m = math.max(k.n, n), v, n
    restored = restored + 1
  elseif k.e == '' then
    k.e = fresh
  end
  k.c, k.by = count, by
  c[i] = k
  local below = isMember and '' or ARGV[at + 2]
  if below ~= '' and k.h > now then hold = math.max(hold, k.h - now) end
  if refused == 0 and below ~= '' and k.v >= tonumber(below) then refused = i end
end
if hold > 0 then refused = -1 end
if refused == 0 or restored > 0 then
  for i, key in ipairs(KEYS) do
    local at, k = (i - 1) * 7, c[i]
    if refused == 0 then
      k.v = math.max(0, k.v + k.by)
      k.n = k.n + 1
      local member = ARGV[at + 7]
      if member ~= '' and k.by < 0 then
        redis.call('HSET', key, '.' .. member, '0', 'c', string.format('%.0f', k.c - 1))
      elseif member ~= '' and k.by > 0 and k.c < ${maxMembers} then
        redis.call('HSET', key, '.' .. member, '1', 'c', string.format('%.0f', k.c + 1))
      end
    end
    redis.call('HSET', key, 'v', string.format('%.0f', k.v), 'n', string.format('%.0f', k.n),
      'e', k.e, 'b', string.format('%.0f', k.b), 'm', string.format('%.0f', k.m),
      'h', string.format('%.0f', k.h))
    if ARGV[at + 3] ~= '' then redis.call('PEXPIRE', key, ARGV[at + 3]) end
  end
end
local result = { refused, restored, hold }
for i = 1, #KEYS do
  result[#result + 1] = string.format('%.0f', c[i].v)
  result[#result + 1] = string.format('%.0f', c[i].n)
  result[#result + 1] = c[i].e
  result[#result + 1] = (refused == 0 and c[i].by ~= 0) and '1' or '0'
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
