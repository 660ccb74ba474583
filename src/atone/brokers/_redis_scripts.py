"""What has to be one step on a Redis server: moves between a group's streams, claims, and trimming, as Lua texts.

Owns the scripts and the few field names that they write. They read the server's clock, never ours, and each may be run
again after an answer was lost. Must not decide when anything is done. Called by the Redis adapter's two halves.

A field that begins with `~` is the adapter's own, and is written anew at each move: ~topic, ~id, ~attempts, ~reason.
"""

from __future__ import annotations

_MOVED = """
local function moved(fields, own)
  local out = {}
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 1) ~= '~' then
      out[#out + 1] = fields[i]
      out[#out + 1] = fields[i + 1]
    end
  end
  for i = 1, #own do out[#out + 1] = own[i] end
  return unpack(out)
end
local function own_field(fields, name, default)
  for i = 1, #fields, 2 do
    if fields[i] == name then return fields[i + 1] end
  end
  return default
end
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
"""

# KEYS: from, to, due times. ARGV: group, entry, "own" if `from` is the group's own stream, milliseconds from now or "",
# then own fields. Returns 0 if the entry had been ended before.
MOVE = (
    _MOVED
    + """
if redis.call('XACK', KEYS[1], ARGV[1], ARGV[2]) == 0 then return 0 end
local found = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
if #found == 0 then return 0 end
local own = {}
for i = 5, #ARGV do own[#own + 1] = ARGV[i] end
local entry = redis.call('XADD', KEYS[2], '*', moved(found[1][2], own))
if ARGV[3] == 'own' then redis.call('XDEL', KEYS[1], ARGV[2]) end
if ARGV[4] ~= '' then redis.call('ZADD', KEYS[3], now_ms() + ARGV[4], entry) end
return 1
"""
)

# KEYS: from, the group's own stream. ARGV: group, consumer, topic or "" if `from` is the group's own, "gone" if the
# consumer never comes back, then entries to keep. What it was given and is not to keep, others get at once.
GIVE_BACK = (
    _MOVED
    + """
local kept = {}
for i = 5, #ARGV do kept[ARGV[i]] = true end
local mine = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 100000, ARGV[2])
for _, one in ipairs(mine) do
  if not kept[one[1]] then
    local found = redis.call('XRANGE', KEYS[1], one[1], one[1])
    redis.call('XACK', KEYS[1], ARGV[1], one[1])
    if #found > 0 then
      local fields = found[1][2]
      local topic = ARGV[3] ~= '' and ARGV[3] or own_field(fields, '~topic', '')
      local id = own_field(fields, '~id', own_field(fields, 'id', one[1]))
      local attempts = own_field(fields, '~attempts', 0) + one[4] - 1
      redis.call('XADD', KEYS[2], '*', moved(fields, {'~topic', topic, '~id', id, '~attempts', attempts}))
      if ARGV[3] == '' then redis.call('XDEL', KEYS[1], one[1]) end
    end
  end
end
if ARGV[4] == 'gone' and #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) == 0 then
  redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
end
return #mine
"""
)

# KEYS: due times, the stream of what waits, the group's own stream. Returns milliseconds until the next is due, or -1.
PROMOTE = (
    _MOVED
    + """
local now = now_ms()
for _, entry in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 200)) do
  local found = redis.call('XRANGE', KEYS[2], entry, entry)
  if #found > 0 then
    redis.call('XADD', KEYS[3], '*', unpack(found[1][2]))
    redis.call('XDEL', KEYS[2], entry)
  end
  redis.call('ZREM', KEYS[1], entry)
end
local next_one = redis.call('ZRANGE', KEYS[1], 0, 0, 'WITHSCORES')
if #next_one == 0 then return -1 end
return math.max(0, next_one[2] - now)
"""
)

# KEYS: stream. ARGV: group, consumer, idle milliseconds, where to go on, how many. Returns where to go on, entries, and
# how often each has been given.
CLAIM = """
local got = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4], 'COUNT', ARGV[5])
local counts = {}
local entries = {}
for _, entry in ipairs(got[2]) do
  if entry then
    local one = redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1)
    entries[#entries + 1] = entry
    counts[#counts + 1] = one[1] and one[1][4] or 1
  end
end
return {got[1], entries, counts}
"""

# KEYS: stream. ARGV: group, consumer, then entries: those that are still the consumer's are not idle from now on.
RENEW = """
for i = 3, #ARGV do
  if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2]) > 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
  end
end
return 1
"""

# KEYS: stream. Removes what every group has ended, whole nodes of the stream at a time and boundedly many; returns how
# many. A stream that no group has declared is left as it is.
TRIM = """
local function older(a, b)
  local a_ms, a_seq = string.match(a, '(%d+)-(%d+)')
  local b_ms, b_seq = string.match(b, '(%d+)-(%d+)')
  if #a_ms ~= #b_ms then return #a_ms < #b_ms end
  if a_ms ~= b_ms then return a_ms < b_ms end
  if #a_seq ~= #b_seq then return #a_seq < #b_seq end
  return a_seq < b_seq
end
local floor = nil
for _, group in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local about = {}
  for i = 1, #group, 2 do about[group[i]] = group[i + 1] end
  local ms, seq = string.match(about['last-delivered-id'], '(%d+)-(%d+)')
  local needed = ms .. '-' .. string.format('%.0f', seq + 1)
  if about['pending'] > 0 then needed = redis.call('XPENDING', KEYS[1], about['name'])[2] end
  if floor == nil or older(needed, floor) then floor = needed end
end
if floor == nil then return 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', '~', floor, 'LIMIT', 10000)
"""

# KEYS: stream. ARGV: group, milliseconds. Forgets consumers that hold nothing and have been silent for so long.
FORGET = """
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local about = {}
  for i = 1, #consumer, 2 do about[consumer[i]] = consumer[i + 1] end
  if about['pending'] == 0 and about['idle'] > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], about['name'])
  end
end
return 1
"""

# KEYS: the dead-letter place, the group's own stream. ARGV: entries of one message: the first is given again.
UNPARK = (
    _MOVED
    + """
local given = 0
for i = 1, #ARGV do
  local found = redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i])
  if #found > 0 then
    local fields = found[1][2]
    if given == 0 then
      redis.call('XADD', KEYS[2], '*', moved(fields, {
        '~topic', own_field(fields, '~topic', ''), '~id', own_field(fields, '~id', ''),
        '~attempts', own_field(fields, '~attempts', 0)}))
    end
    redis.call('XDEL', KEYS[1], ARGV[i])
    given = 1
  end
end
return given
"""
)
