-- owner, call, then for each settlement: list, number, how many of the arguments that follow are its effects:
--   record <id> <seconds> <meta> <final> · push <list> <envelope> · front <list> <envelope> ·
--   wait <list> <envelope> <due> · dead <letter> · tell <channel> <envelope> <letter if nobody hears it, or ''> ·
--   park <due> (the message itself) · unadopt <name> ·
--   part <group> <index> <payload> <size> <member> <number of its body, or ''>
-- or, for some in a row that only have a result: list, 'results', seconds, how many, (number, id, meta)…
-- or, for some in a row that have nothing: list, 'ends', (unused), how many, number…
-- or a body, counted from 1: '', 'body', how many effects, the message (or '': its group has it), effects.
-- Answers the numbers of those that were not held, nothing of which is applied.
even_when_full()
local owner = ARGV[1]

local effects, bodies = {}, {}

function effects.record(n) put_record(ARGV[n], ARGV[n + 1], ARGV[n + 2], ARGV[n + 3]) return n + 4 end
function effects.push(n) redis.call('LPUSH', P .. ARGV[n], ARGV[n + 1]) return n + 2 end
function effects.front(n) redis.call('RPUSH', P .. ARGV[n], ARGV[n + 1]) return n + 2 end
function effects.wait(n) schedule(ARGV[n], ARGV[n + 1], ARGV[n + 2]) return n + 3 end
function effects.park(n, list, raw) schedule(list, raw, ARGV[n]) return n + 1 end
function effects.tell(n)
  -- Celery's workers hear it; a letter stands for: nobody else does.
  if redis.call('PUBLISH', ARGV[n], ARGV[n + 1]) == 0 and ARGV[n + 2] ~= '' then bury(ARGV[n + 2]) end
  return n + 3
end
function effects.unadopt(n) redis.call('HDEL', P .. 'umbel.adopted', ARGV[n]) return n + 1 end
function effects.dead(n) bury(ARGV[n]) return n + 1 end

local function apply(n, last, list, raw)
  while n <= last do n = effects[ARGV[n]](n + 1, list, raw) end
end

function effects.part(n)
  local group, body = group_of(ARGV[n]), bodies[tonumber(ARGV[n + 5])]
  group.given = body or group.given
  if join_part(ARGV[n], ARGV[n + 1], ARGV[n + 2], ARGV[n + 3], ARGV[n + 4], body and body.message) then
    if group.given then
      confirm_group(ARGV[n])
      apply(group.given.first, group.given.last)
    else
      -- What another part brought is published by whoever looks for groups that nobody goes on with.
      await_confirmation(ARGV[n], 0)
    end
  end
  return n + 6
end

local stale, ended = {}, {}

local function store_results(first, last, key, seconds)
  local call, count = redis.call, #ended
  for n = first, last, 3 do
    local number = ARGV[n]
    if call('HDEL', key, number) == 1 then
      count = count + 1
      ended[count] = number
      put_record(ARGV[n + 1], seconds, ARGV[n + 2], '1')
    else
      stale[#stale + 1] = number
    end
  end
  return last + 1
end

local function end_leases(first, last, key)
  local call, count = redis.call, #ended
  for n = first, last do
    local number = ARGV[n]
    if call('HDEL', key, number) == 1 then
      count = count + 1
      ended[count] = number
    else
      stale[#stale + 1] = number
    end
  end
  return last + 1
end

local function settle(n, list, key)
  local number, first = ARGV[n + 1], n + 3
  local last = n + 2 + tonumber(ARGV[n + 2])
  local raw = ARGV[first] == 'park' and first <= last and envelope_of(number, redis.call('HGET', key, number))
  if redis.call('HDEL', key, number) == 1 then
    ended[#ended + 1] = number
    apply(first, last, list, raw)
  else
    stale[#stale + 1] = number
  end
  return last + 1
end

local n, list, key = 3, nil, nil
while n <= #ARGV do
  if ARGV[n] ~= list then
    list = ARGV[n]
    key = held_key(owner, list)
  end
  if ARGV[n + 1] == 'results' then
    n = store_results(n + 4, n + 3 + 3 * tonumber(ARGV[n + 3]), key, ARGV[n + 2])
  elseif ARGV[n + 1] == 'ends' then
    n = end_leases(n + 4, n + 3 + tonumber(ARGV[n + 3]), key)
  elseif ARGV[n + 1] == 'body' then
    local last = n + 3 + tonumber(ARGV[n + 2])
    bodies[#bodies + 1] = {message = ARGV[n + 3], first = n + 4, last = last}
    n = last + 1
  else
    n = settle(n, list, key)
  end
end
in_chunks('HDEL', P .. 'umbel.notes.' .. owner, ended)
if redis.call('EXISTS', has_large_key(owner)) == 1 then
  local keys = {}
  for place, number in ipairs(ended) do keys[place] = large_key(number) end
  for first = 1, #keys, 1000 do redis.call('DEL', unpack(keys, first, math.min(first + 999, #keys))) end
end
if ARGV[2] ~= '' then
  redis.call('SET', P .. 'umbel.settled.' .. owner, ARGV[2] .. ' ' .. table.concat(stale, ' '), 'EX', 86400)
end
return stale
