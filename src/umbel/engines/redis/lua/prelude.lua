-- Shared by every script. KEYS[1] is the key prefix; `now` is '' for the server's own clock.
local P = KEYS[1]
local SEP = '\6\22'

local function clock(text)
  if text ~= '' then return tonumber(text) end
  local time = redis.call('TIME')
  return tonumber(time[1]) + tonumber(time[2]) / 1000000
end

-- Redis refuses the first write of a script when its memory is full, unless that write can only free some.
local function even_when_full() redis.call('HDEL', P .. 'umbel.scheduled.count', '') end

local function held_key(owner, list) return P .. 'umbel.held.' .. owner .. SEP .. list end
local function staged_key(owner, list) return P .. 'umbel.staged.' .. owner .. SEP .. list end

-- A large message is held in a list of its own, and '' stands in the place of its envelope.
local function large_key(number) return P .. 'umbel.large.' .. number end
local function has_large_key(owner) return P .. 'umbel.has_large.' .. owner end
local function envelope_of(number, value)
  if value ~= '' then return value end
  return redis.call('LINDEX', large_key(number), 0) or ''
end

local function in_chunks(command, key, values)
  for first = 1, #values, 1000 do
    redis.call(command, key, unpack(values, first, math.min(first + 999, #values)))
  end
end

-- Put a message away until `due`; tells idle consumers when it comes before all others.
local function schedule(list, raw, due)
  local key = P .. 'umbel.scheduled'
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  if redis.call('ZADD', key, due, list .. '\0' .. raw) == 1 then
    redis.call('HINCRBY', P .. 'umbel.scheduled.count', list, 1)
  end
  if not first or tonumber(due) < tonumber(first) then
    redis.call('PUBLISH', P .. 'umbel.due', due)
  end
end

-- Make ready what is due, oldest first; returns when the next is due, or ''.
local function promote(now)
  local key = P .. 'umbel.scheduled'
  local first = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]
  if not first or tonumber(first) > now then return first or '' end
  local due = redis.call('ZRANGEBYSCORE', key, '-inf', string.format('%.17g', now), 'LIMIT', 0, 500)
  local counts = {}
  for _, member in ipairs(due) do
    local cut = string.find(member, '\0', 1, true)
    local list = string.sub(member, 1, cut - 1)
    redis.call('LPUSH', P .. list, string.sub(member, cut + 1))
    counts[list] = (counts[list] or 0) + 1
  end
  in_chunks('ZREM', key, due)
  for list, count in pairs(counts) do
    if redis.call('HINCRBY', P .. 'umbel.scheduled.count', list, -count) <= 0 then
      redis.call('HDEL', P .. 'umbel.scheduled.count', list)
    end
  end
  return redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')[2] or ''
end

local function bury(letter)
  local number = redis.call('INCR', P .. 'umbel.dead.last')
  redis.call('HSET', P .. 'umbel.dead', number, letter)
  redis.call('ZADD', P .. 'umbel.dead.order', number, number)
  return number
end

-- Which call of a kind was the last to take something for an owner: "<client>.<number> <first tag> <how many>".
local function keep_call(kind, owner, call, first, count)
  redis.call('SET', P .. 'umbel.' .. kind .. '.' .. owner, string.format('%s %.0f %d', call, first, count), 'EX', 86400)
end

-- What a call has taken already, if it is a repeat of one whose reply was lost: {list, number, raw, note} each. It is {}
-- for one that comes late, its client having given it up and gone on; nil when it is to be carried out.
local function taken_before(kind, owner, call, again)
  local last = redis.call('GET', P .. 'umbel.' .. kind .. '.' .. owner)
  if not last then return nil end
  local client, number, first, count = string.match(last, '^(.+)%.(%d+) (%d+) (%d+)$')
  local own, place = string.match(call, '^(.+)%.(%d+)$')
  if client ~= own or tonumber(place) > tonumber(number) then return nil end
  if place ~= number or again ~= '1' or count == '0' then return {} end
  local tags, found = {}, {}
  for tag = tonumber(first), tonumber(first) + tonumber(count) - 1 do tags[#tags + 1] = string.format('%.0f', tag) end
  local notes = redis.call('HMGET', P .. 'umbel.notes.' .. owner, unpack(tags))
  for _, list in ipairs(redis.call('SMEMBERS', P .. 'umbel.lists.' .. owner)) do
    for index, raw in ipairs(redis.call('HMGET', held_key(owner, list), unpack(tags))) do
      if raw then found[#found + 1] = {list, tags[index], envelope_of(tags[index], raw), notes[index] or ''} end
    end
  end
  table.sort(found, function(a, b) return tonumber(a[2]) < tonumber(b[2]) end)
  return found
end
