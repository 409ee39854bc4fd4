-- In front of every script. KEYS[1] is the key prefix; `now` is '' for the server's own clock.
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
