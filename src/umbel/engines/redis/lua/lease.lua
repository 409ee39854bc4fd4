-- owner, now, seconds, limit, call, again, register, drain, large, number of queues, queue…, share,
-- (list, index of queue)…
-- Answers {now, next due or '', entries, again, whether anything is revoked, 1 if nothing ready is left in the lists}; an
-- entry is {list, first number, raw…}, or {list, number, raw, note} again. Where messages are large, `large` is how many
-- to take at most: it may answer 2 for again and {list, first number, how many}, which the caller then moves and claims.
local owner, now, limit, call = ARGV[1], clock(ARGV[2]), tonumber(ARGV[4]), ARGV[5]
local deadline = now + tonumber(ARGV[3])
local large, queues = tonumber(ARGV[9]), tonumber(ARGV[10])
local at = 11 + queues
local share = tonumber(ARGV[at])
local revoked = redis.call('EXISTS', (KEYS[2] or P) .. 'umbel.revoked')
local text = string.format('%.17g', now)

even_when_full()
local fresh = redis.call('ZADD', P .. 'umbel.owners', deadline, owner) == 1
if fresh or ARGV[7] == '1' then
  local lists = {}
  for n = at + 1, #ARGV, 2 do lists[#lists + 1] = ARGV[n] end
  if #lists > 0 then in_chunks('SADD', P .. 'umbel.lists.' .. owner, lists) end
  for n = 11, at - 1 do
    redis.call('ZADD', P .. 'umbel.consumers.' .. ARGV[n], deadline, owner)
    redis.call('ZREMRANGEBYSCORE', P .. 'umbel.consumers.' .. ARGV[n], '-inf', '(' .. text)
    redis.call('SADD', P .. 'umbel.queues', ARGV[n])
  end
end
if limit > 0 or ARGV[6] == '1' then
  local found = taken_before('call', owner, call, ARGV[6])
  if found then return {text, '', found, 1, revoked, 0} end
end
local due = promote(now)

local entries, total, per_queue = {}, 0, {}
local of_list = {}

-- The first few tell how large messages are here: no more bytes are taken at once than these, large ones by turns.
local bytes, most_bytes = 0, 16777216

local function pop(list, key, queue, count)
  local raws = redis.call('RPOP', key, count)
  if not raws or #raws == 0 then return 0 end
  local entry = of_list[list]
  if not entry then
    entry = {list, 0}
    of_list[list] = entry
    entries[#entries + 1] = entry
  end
  local last = #entry
  for n = 1, #raws do
    local raw = raws[n]
    entry[last + n] = raw
    bytes = bytes + #raw
  end
  total = total + #raws
  per_queue[queue] = (per_queue[queue] or 0) + #raws
  return #raws
end

local function take(list, key, queue, most)
  while most > 0 and bytes < most_bytes do
    local count = math.min(most, 16)
    if total > 0 then count = math.min(most, math.floor((most_bytes - bytes) * total / math.max(bytes, 1)) + 1) end
    local got = pop(list, key, queue, count)
    if got < count then return end
    most = most - got
  end
end

if ARGV[8] == '1' then
  for n = at + 1, #ARGV, 2 do
    local staged = staged_key(owner, ARGV[n])
    take(ARGV[n], staged, ARGV[n + 1], limit - total)
    while true do
      local raw = redis.call('LPOP', staged)
      if not raw then break end
      redis.call('RPUSH', P .. ARGV[n], raw)
    end
  end
end
if large > 0 and total == 0 then
  -- What Redis hands to Lua is copied several times: large messages go past it.
  for n = at + 1, #ARGV, 2 do
    local count = math.min(large, limit, share, redis.call('LLEN', P .. ARGV[n]))
    if count > 0 then
      local first = redis.call('INCRBY', P .. 'umbel.tag', count) - count + 1
      return {text, '', {ARGV[n], string.format('%.0f', first), count}, 2, revoked, 0}
    end
  end
end
for n = at + 1, #ARGV, 2 do
  local queue = ARGV[n + 1]
  take(ARGV[n], P .. ARGV[n], queue, math.min(limit - total, share - (per_queue[queue] or 0)))
end
if total < limit and queues > 1 then
  for n = at + 1, #ARGV, 2 do take(ARGV[n], P .. ARGV[n], ARGV[n + 1], limit - total) end
end

local empty = total < limit and bytes < most_bytes and 1 or 0
if total == 0 then
  if ARGV[6] == '1' then keep_call('call', owner, call, 0, 0) end
  return {text, due, entries, 0, revoked, empty}
end
local number = redis.call('INCRBY', P .. 'umbel.tag', total) - total
keep_call('call', owner, call, number + 1, total)
for _, entry in ipairs(entries) do
  local fields, last = {}, 0
  entry[2] = string.format('%.0f', number + 1)
  for n = 3, #entry do
    number = number + 1
    -- A number below 1e17 becomes its digits on the way to Redis.
    fields[last + 1] = number
    fields[last + 2] = entry[n]
    last = last + 2
  end
  in_chunks('HSET', held_key(owner, entry[1]), fields)
end
return {text, due, entries, 0, revoked, empty}
